"""One contestant of engines.py: a process with a loaded net that separates the song per line.

    python -m benchmarks.contestants mdx|openvino|audio-separator|bare NET OVERLAP SONG FOLDER

audio-separator runs in its own environment, so our packages are imported by the others only. It
reads lines from standard input. Each answer is a line of JSON: `seconds` from the song's file to
both stems' files; of our engine also its share of them, and the `device` that it ran on.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from common.separation.engine import Samples

Item = TypeVar("Item")
Run = Callable[[], dict[str, float | str]]


class Race(NamedTuple):
    """The arguments of every contestant."""

    net: Path
    overlap: float
    song: Path
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Return the net's settings, with the names of UVR's registry."""
        return dict(json.loads(self.net.with_name(f"{self.net.name}.json").read_bytes()))


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield *items*, adding up the time it takes to get them."""
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - began
            if item is None:
                return
            yield item


def mdx(race: Race, device: str = "cpu") -> Run:
    """Our engine, as the separation process runs it."""
    from common.separation import stems
    from common.separation.mdx import MdxEngine
    from common.separation.nets import Net
    from common.separation.progress import Report

    class Timed(MdxEngine):
        def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
            decoding, whole = _Stopwatch(), _Stopwatch()
            yield from whole.over(super().vocals(decoding.over(mixture), sample_rate))
            engine_seconds.append(whole.seconds - decoding.seconds)

    net = Net(race.net, device, cores())
    engine = Timed(net, cores(), overlap=race.overlap)
    engine_seconds: list[float] = []
    report = Report(seconds=lambda _seconds: None, percent=lambda _percent: None)

    def run() -> dict[str, float | str]:
        receipt = stems.separate(engine, race.song, race.folder, "wav", 1e6, report)
        return {
            "seconds": receipt.seconds.separate,
            "engine_seconds": engine_seconds[-1],
            "device": receipt.device,
        }

    return run


def bare(race: Race) -> Run:
    """Only `session.run`, on as many chunks as `mdx` has: the bound for every engine."""
    import numpy as np
    from scipy.io import wavfile

    from common.separation import mdx as engine
    from common.separation.nets import Net

    settings = race.settings
    net = Net(race.net, "cpu", cores())
    shape = (1, 4, settings["mdx_dim_f_set"], 1 << settings["mdx_dim_t_set"])
    planes = np.random.default_rng(0).normal(0, 10, shape).astype(np.float32)
    frames = len(wavfile.read(race.song)[1]) + settings["mdx_n_fft_scale_set"] // 2
    step = int((1 - race.overlap) * engine.HOP * (shape[3] - 1))

    def run() -> dict[str, float | str]:
        began = time.perf_counter()
        for _ in range(-(-frames // step)):
            net.run(planes)
        return {"seconds": time.perf_counter() - began}

    return run


def audio_separator(race: Race) -> Run:
    """The library's MDX-Net; its converter for nets of other lengths is not installed or used."""
    for name in ("onnx", "onnx2torch"):
        sys.modules[name] = types.ModuleType(name)
    from audio_separator.separator import Separator

    class Library(Separator):  # type: ignore[misc] # it ships no types
        def check_ffmpeg_installed(self) -> None:
            """Skip the check: soundfile reads and writes the files."""

        def download_model_files(self, model_filename: str) -> tuple[str, str, str, str, None]:
            return model_filename, "MDX", model_filename, str(race.net), None

        def load_model_data_using_hash(self, _path: str) -> dict[str, Any]:
            return race.settings

    parameters = {"hop_length": 1024, "segment_size": 256, "overlap": race.overlap, "batch_size": 1}
    library = Library(
        log_level=40,
        model_file_dir=str(race.net.parent),
        output_dir=str(race.folder),
        normalization_threshold=1.0,
        use_soundfile=True,
        mdx_params={**parameters, "enable_denoise": False},
    )
    library.load_model(race.net.name)

    def run() -> dict[str, float | str]:
        began = time.perf_counter()
        library.separate(str(race.song), {"Vocals": "vocals", "Instrumental": "instrumental"})
        return {"seconds": time.perf_counter() - began}

    return run


CONTESTANTS: dict[str, Callable[[Race], Run]] = {
    "mdx": mdx,
    "openvino": partial(mdx, device="openvino"),
    "bare": bare,
    "audio-separator": audio_separator,
}


def main() -> None:
    """Load, report it, and race once per line."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    kind, net, overlap, song, folder = sys.argv[1:]
    run = CONTESTANTS[kind](Race(Path(net), float(overlap), Path(song), Path(folder)))
    answers.write("{}\n")
    for _ in sys.stdin:
        answers.write(json.dumps(run()) + "\n")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
