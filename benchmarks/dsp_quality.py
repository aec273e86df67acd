"""python benchmarks/dsp_quality.py [--seeds FIRST LAST] [--seconds SECONDS] [--mono]

The quality and the speed of `dsp`. The separation process separates songs with a known voice
(tools/songs/song.py: voice, chords, bass, drums, reverb; another key, tempo, harmony and groove for
every seed), and the written stems are compared with the voice and the band. SDR is that of BSS Eval
version 1, over the whole song: the energy of the true stem over the energy of the error. The engine
was tuned on seeds 0 to 7; these are others. Exit 1 when the mean SDR of the vocals is below 8.6 dB
or the speed below 35 times real time (of all steps, two threads).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np
from numpy.typing import NDArray

from common.separation.child import Separator
from tests import separators, sounds
from tools.songs.song import make

RATE = 44_100


@dataclass(frozen=True)
class Figures:
    """Of one song: SDR in dB of the mixture as vocals, of both stems, and the speed."""

    mixture_db: float
    vocals_db: float
    instrumental_db: float
    realtime_factor: float


def sdr_db(wanted: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    """Return the level of *wanted* over that of the error."""
    return float(sounds.db(sounds.rms(wanted)) - sounds.db(sounds.rms(wanted - found)))


def measure(
    separator: Separator, seed: int, seconds: float, channels: int, folder: Path
) -> Figures:
    """Separate one song and compare."""
    mixture, voice = (part[:channels].astype(np.float64) for part in make(seconds, seed, RATE))
    source = sounds.write_wav(folder / "song.wav", mixture, 24)
    receipt = separators.separate(separator, source, folder)
    vocals, instrumental = (
        sounds.read_wav(folder / f"{name}.wav")[1] for name in ("vocals", "instrumental")
    )
    return Figures(
        sdr_db(voice, mixture),
        sdr_db(voice, vocals / receipt.gain),
        sdr_db(mixture - voice, instrumental / receipt.gain),
        receipt.realtime_factor,
    )


def main() -> int:
    """Measure every song; return the exit code."""
    arguments = _arguments()
    first, last = arguments.seeds
    print("seed  mixture dB  vocals dB  instrumental dB  real time")
    with (
        tempfile.TemporaryDirectory() as name,
        separators.started(threads=2, max_audio_seconds=1e6) as separator,
    ):
        folder = Path(name)
        # The first song includes late loading, and is not measured.
        measure(separator, first, 5, 1 if arguments.mono else 2, folder)
        songs = []
        for seed in range(first, last + 1):
            songs.append(
                measure(separator, seed, arguments.seconds, 1 if arguments.mono else 2, folder)
            )
            _show(str(seed), songs[-1])
    mean = Figures(*np.mean([astuple(song) for song in songs], axis=0).tolist())
    _show("mean", mean)
    return 0 if mean.vocals_db >= 8.6 and mean.realtime_factor >= 35 else 1


def _show(name: str, figures: Figures) -> None:
    print(
        f"{name:4}{figures.mixture_db:12.2f}{figures.vocals_db:11.2f}{figures.instrumental_db:17.2f}"
        f"{figures.realtime_factor:10.1f}x",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="dsp_quality.py",
    )
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 111), metavar=("FIRST", "LAST"))
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of each song, default %(default)s"
    )
    parser.add_argument("--mono", action="store_true", help="only the left channel")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
