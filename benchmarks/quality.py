"""python benchmarks/quality.py [--model FILE…] [--songs N] [--seconds SECONDS] [--write]

The quality of the engines on material that none was tuned on: generated songs with known stems,
composed, played with a sampled sound font and sung by a trained synthetic voice (score.py, band.py,
singer.py, songs.py); and six seconds of a real song from MUSDB18's test set, part of the package
stempeg. The first run creates an environment in data/benchmarks/quality (with Python 3.11 or 3.12).
It measures `dsp`, and Spleeter's model or those of --model in UVR_MODEL_DIR. measures.py explains
the figures.

Exit 1 when Spleeter's model misses a goal: an SDR of 5 dB (vocals) and 12 dB (instrumental) on the
real song; on the mean of the generated ones, 2.5 dB more SDR of the vocals than `dsp`, and ghosts
below -40 dB. --write replaces the tables in docs/engines.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import av
import numpy as np

from benchmarks import measures, page
from benchmarks.measures import Figures, Stem
from common.errors import TaskError
from common.separation import audio, resampling
from common.separation.engine import Engine
from common.separation.engines import Engines
from tests import separators
from tools.environment import LocalSetupFailed
from tools.environment.venv import Environment
from tools.terminal.status_line import StatusLine

STATE = ROOT / "data" / "benchmarks" / "quality"
STUDIO = Environment(STATE / "venv", ROOT / "requirements" / "benchmarks.txt", STATE)
SPLEETER = "spleeter-2stems.onnx"
MIXTURE, DSP, BOUND = "the mixture as it is", "dsp", "ideal ratio mask (bound)"

#: The figures of a song by engine, and those of all songs by name.
Rows: TypeAlias = dict[str, Figures]
Measured: TypeAlias = dict[str, Rows]


@dataclass(frozen=True)
class Song:
    """A song's stems, float32 `[2, frames]`, which add up to the mixture."""

    name: str
    voice: Stem
    band: Stem
    rate: int = 44_100


def generated(seed: int, seconds: float, folder: Path) -> Song:
    """Generate a song in a process of the studio's environment.

    Raises:
        LocalSetupFailed: the process failed; its output is above.
    """
    file = folder / "song.npy"
    command = [str(STUDIO.python), "-m", "benchmarks.songs", str(seed), str(seconds), str(file)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise LocalSetupFailed(f"Song {seed} could not be generated.")
    voice, band = np.load(file)
    return Song(f"{seed}, {done.stdout.strip()}", voice, band)


def real() -> Song:
    """Decode stempeg's song, "Falcon 69" by The Easton Ellises."""
    file = next((STUDIO.folder).glob("**/stempeg/data/*.stem.mp4"))
    # The file's streams: the mixture, drums, bass, other, vocals.
    streams = [_decoded(file, number) for number in range(1, 5)]
    frames = min(stream.shape[1] for stream in streams)
    *band, vocals = (stream[:, :frames] for stream in streams)
    return Song("real song", vocals, np.sum(band, axis=0))


def _decoded(file: Path, number: int) -> Stem:
    with av.open(str(file)) as container:
        stream = container.streams.audio[number]
        return np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)


def separated(engine: Engine, song: Song) -> Stem:
    """Return the vocals of *engine*, fed as in the separation process."""
    mixture = (song.voice + song.band).astype(np.float32)
    peak = np.float32(np.abs(mixture).max())
    ends = range(audio.BLOCK_FRAMES, mixture.shape[1], audio.BLOCK_FRAMES)
    blocks = np.split(mixture / peak, ends, axis=1)
    rate = engine.sample_rate or song.rate
    vocals = engine.vocals(resampling.resampled(iter(blocks), song.rate, rate), rate)
    back = resampling.exactly(resampling.resampled(vocals, rate, song.rate), mixture.shape[1])
    return np.concatenate(list(back), axis=1) * peak


def measured(song: Song, engines: dict[str, Engine], status: Callable[[str], None]) -> Rows:
    """Return the figures of one song, by row."""
    mixture = song.voice + song.band
    rows = {MIXTURE: measures.both_figures(song.voice, song.band, mixture, mixture, song.rate)}
    for name, engine in engines.items():
        status(f"{song.name}: {name}")
        rows[name] = measures.figures(song.voice, song.band, separated(engine, song), song.rate)
    ideal = measures.ideal_vocals(song.voice, song.band)
    rows[BOUND] = measures.figures(song.voice, song.band, ideal, song.rate)
    return rows


def mean(songs: list[Rows]) -> Rows:
    """Return the mean of each row over *songs*, in dB."""
    means = {name: np.mean([astuple(song[name]) for song in songs], axis=0) for name in songs[0]}
    return {name: Figures(*row.tolist()) for name, row in means.items()}


def table(about: str, songs: list[Rows]) -> str:
    """Return all figures of one song, or their means over several, in Markdown.

    Means come with the worst ghosts: a mean of decibels hides a single bad song.
    """
    lines = [
        f"| {about} | SDR of the vocals | of the instrumental | ghosts | voice left |",
        "|---|---|---|---|---|",
    ]
    for name, row in mean(songs).items():
        cells = [_shown(figure, " dB") for figure in astuple(row)]
        if len(songs) > 1:
            cells[2] += f" (worst {_shown(worst_ghosts(songs, name))})"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst_ghosts(songs: list[Rows], name: str) -> float:
    """Return the loudest ghosts of all *songs* in the row *name*, in dB."""
    return max(song[name].ghosts for song in songs)


def songs_table(songs: Measured) -> str:
    """Return three figures of every song in Markdown."""
    names = list(next(iter(songs.values())))
    lines = [
        f"| vocals, instrumental, ghosts in dB | {' | '.join(names)} |",
        f"|---{'|---' * len(names)}|",
    ]
    for song, rows in songs.items():
        figures = (astuple(rows[name])[:3] for name in names)
        lines.append(f"| {song} | {' | '.join(', '.join(map(_shown, row)) for row in figures)} |")
    return "\n".join(lines)


def _shown(figure: float, unit: str = "") -> str:
    return "" if np.isnan(figure) else f"{figure:z.1f}{unit}"


def missed(songs: Rows, real_song: Rows) -> Iterator[str]:
    """Yield the goals that Spleeter's model misses; *songs* is the mean of the generated ones."""
    net, on_real = songs[SPLEETER], real_song[SPLEETER]
    better_db = net.vocals - songs[DSP].vocals
    least = {
        "SDR of the real song's vocals": (on_real.vocals, 5.0),
        "SDR of the real song's instrumental": (on_real.instrumental, 12.0),
        "the gain over dsp": (better_db, 2.5),
    }
    for what, (found, wanted) in least.items():
        if found < wanted:
            yield f"{what} is {found:.2f} dB; it must be at least {wanted:g} dB"
    if net.ghosts > -40:
        yield f"the mean of the ghosts is {net.ghosts:.1f} dB; it must be below -40 dB"


def main() -> int:
    """Generate, separate and measure every song, and print the tables."""
    arguments = _arguments()
    status = StatusLine()
    try:
        os.environ["PIP_NO_DEPS"] = "1"  # the requirements are complete
        STUDIO.make(status)
        engines = _engines(arguments, status)
        songs, real_rows = _all_songs(arguments, engines, status)
    except (LocalSetupFailed, TaskError) as error:
        status.finish(str(error))
        return 2
    generated_rows = list(songs.values())
    found = "\n\n".join(
        [
            table(f"{len(songs)} generated songs of {arguments.seconds:g} s, mean", generated_rows),
            table("the real song, 6 s", [real_rows]),
            songs_table(songs),
        ]
    )
    print(found)
    if arguments.write:
        page.put("benchmarks/quality.py", found)
    misses = list(missed(mean(generated_rows), real_rows)) if SPLEETER in engines else []
    for miss in misses:
        print(f"Missed: {miss}.")
    return 1 if misses else 0


def _all_songs(
    arguments: argparse.Namespace,
    engines: dict[str, Engine],
    status: StatusLine,
) -> tuple[Measured, Rows]:
    """Return the figures of every generated song, and those of the real one."""
    songs: Measured = {}
    with tempfile.TemporaryDirectory() as name:
        for seed in range(arguments.songs):
            status(f"song {seed}: composing, playing and singing")
            song = generated(seed, arguments.seconds, Path(name))
            songs[song.name] = measured(song, engines, status)
            status.finish(_line(song.name, songs[song.name]))
    rows = measured(real(), engines, status)
    status.finish(_line("real song", rows))
    return songs, rows


def _line(song: str, rows: Rows) -> str:
    both = (f"{name} {row.vocals:.2f}, {row.instrumental:.2f}" for name, row in rows.items())
    return f"{song:24}{';  '.join(both)}"


def _engines(arguments: argparse.Namespace, status: StatusLine) -> dict[str, Engine]:
    """Load `dsp`, and the named models or Spleeter's if it is in the folder."""
    folder, models = arguments.model_dir, arguments.model
    if models is None:
        models = [SPLEETER] if (folder / SPLEETER).exists() else []
        if not models:
            how = f"python scripts/models.py download {Path(SPLEETER).stem}"
            status.finish(f"{SPLEETER} is not in {folder}, so only dsp is measured: {how}")
    return {
        name: Engines(
            separators.make_settings(
                model=model, model_dir=folder, device="cpu", threads=arguments.threads
            )
        ).of(None)
        for name, model in {DSP: "", **{model: model for model in models}}.items()
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="quality.py"
    )
    default_folder = os.environ.get("UVR_MODEL_DIR", "models")
    there = f"default: {SPLEETER}, if it is in the folder"
    parser.add_argument("--model", nargs="+", metavar="FILE", help=there)
    parser.add_argument("--model-dir", type=Path, default=default_folder, metavar="DIR")
    parser.add_argument("--songs", type=int, default=8, help="to generate, default %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each, default %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="of an engine, default all cores")
    parser.add_argument("--write", action="store_true", help=f"replace the tables in {page.NAME}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
