"""One song's way from a source file to two stems and a receipt, inside the separation child.

The source is decoded three times, each time in blocks: to know what it is; for the engine, while
both stems are written; and to hold what was written against it. Engines lag behind by as much as a
window, and the mixture stays in memory until they catch up.

Only the end of a song shows whether its stems fit into the format. They are written as if they did,
while the vocals are also spooled to disk as floats. When a stem clips, writing stops and the rest
is only spooled; then both stems are written again from the spool, at the common gain that they
need.

The instrumental is quantised source minus quantised vocals, in integers, so that the stems add up
to the source exactly as written; rounding each by itself would be wrong by up to one step.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import SeparationFailed
from common.messages import STEMS, Format, Receipt, Source, StageSeconds, StemName
from common.separation import audio, encoding, resampling, stem_check
from common.separation.audio import Exact, Song
from common.separation.encoding import Encoding, StemFile
from common.separation.engine import Engine, Samples
from common.separation.progress import Progress, Report

_Item = TypeVar("_Item")
_Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
#: A block of the source and its vocals.
_Separated: TypeAlias = tuple[Exact, Samples]


class _Stopwatch:
    """Adds up the seconds that are spent inside of it."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds += time.perf_counter() - self._began


@dataclass(frozen=True)
class _Job:
    """One separation: the source, how its stems are written, and where."""

    source: Path
    song: Song
    folder: Path
    how: Encoding
    output_format: Format
    progress: Progress
    writing: _Stopwatch

    def stem(self, name: StemName) -> Path:
        return self.folder / f"{name}.{self.output_format}"

    @property
    def spool(self) -> Path:
        return self.folder / "vocals.spool"

    @property
    def may_clip(self) -> bool:
        """Whether the format has a full scale; floats hold everything."""
        return self.how.bits > 0 or self.how.lossy


def separate(
    engine: Engine,
    source: Path,
    folder: Path,
    output_format: Format,
    max_seconds: float,
    report: Report,
    *,
    bitrate_kbps: int | None = None,
    bit_depth: int | None = None,
) -> Receipt:
    """Write `vocals.<format>` and `instrumental.<format>` of *source* into *folder*.

    *bitrate_kbps* and *bit_depth* are explained in `encoding.choose`.

    Raises:
        InputEmpty, NoAudio, AudioTooLong, DecodeFailed: see `audio.probe`.
        SeparationFailed: the engine failed, or the stems fail their check.
        DiskFull, EncodeFailed: the stems cannot be written.
    """
    started = time.perf_counter()
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    song = audio.probe(source, max_seconds)
    report.seconds(song.seconds)
    how = encoding.choose(output_format, song.depth, bitrate_kbps=bitrate_kbps, bit_depth=bit_depth)
    progress = Progress(report.percent, engine.name, output_format, song.frames)
    progress.did("probe", song.frames)
    job = _Job(source, song, folder, how, output_format, progress, _Stopwatch())
    try:
        gain = _write_stems(job, engine)
    finally:
        job.spool.unlink(missing_ok=True)
    report.encoded(job.writing.seconds)
    files = {name: job.stem(name) for name in STEMS}
    residual_db, peaks = stem_check.measure(
        source, song, files, how, gain, lambda frames: progress.did("check", frames)
    )
    report.percent(100)
    seconds = time.perf_counter() - started
    return Receipt(
        source=Source(
            sha256=sha256,
            seconds=song.seconds,
            frames=song.frames,
            sample_rate=song.sample_rate,
            channels=song.channels,
            codec=song.codec,
            track=song.track,
            tracks=song.tracks,
            damaged=song.damaged + len(song.noise),
        ),
        engine=engine.name,
        model=engine.model,
        model_sha256=engine.model_sha256,
        device=engine.device,
        residual_db=residual_db,
        gain=gain,
        peak=peaks,
        seconds=StageSeconds(download=0.0, separate=seconds),
        realtime_factor=song.seconds / seconds,
    )


def _separated(job: _Job, engine: Engine) -> Generator[_Separated, None, None]:
    """Yield the source's blocks, each with its vocals."""
    for_engine, mixtures = _twice(audio.blocks(job.source, job.song))
    mixture = np.empty((job.song.channels, 0), np.float32)
    for block in _vocals(job, engine, for_engine):
        job.progress.did("separate", block.shape[1])
        vocals = block
        while vocals.shape[1]:
            if not mixture.shape[1]:
                mixture = next(mixtures)
            frames = min(mixture.shape[1], vocals.shape[1])
            yield mixture[:, :frames], vocals[:, :frames]
            mixture, vocals = mixture[:, frames:], vocals[:, frames:]


def _vocals(job: _Job, engine: Engine, blocks: Iterator[Exact]) -> Iterator[Samples]:
    """Run the engine on *blocks* at a peak of 1.0, so that loudness does not decide."""
    song = job.song
    # A peak that only float64 can hold is silence to an engine, and not to be divided by.
    peak = np.float32(max(song.peak, float(np.finfo(np.float32).tiny)))
    mixture = ((block / peak).astype(np.float32, copy=False) for block in blocks)
    rate = engine.sample_rate or song.sample_rate
    separated = engine.vocals(resampling.resampled(mixture, song.sample_rate, rate), rate)
    resampled = resampling.resampled(separated, rate, song.sample_rate)
    for block in resampling.exactly(resampled, song.frames):
        if len(block) != song.channels:
            raise SeparationFailed(
                f"The engine returned {len(block)} channels for {song.channels}."
            )
        if not np.isfinite(block).all():
            raise SeparationFailed("The engine returned samples that are not numbers.")
        # In place: the block is ours, and may be a minute long.
        yield np.multiply(block, peak, out=block)


def _twice(items: Iterator[_Item]) -> tuple[Iterator[_Item], Iterator[_Item]]:
    """Give *items* to two readers, as `itertools.tee` does, which holds up to 57 items more."""
    waiting: tuple[deque[_Item], deque[_Item]] = deque(), deque()

    def reader(mine: deque[_Item]) -> Iterator[_Item]:
        while True:
            if not mine:
                try:
                    item = next(items)
                except StopIteration:
                    return
                for items_of in waiting:
                    items_of.append(item)
                del item
            yield mine.popleft()

    return reader(waiting[0]), reader(waiting[1])


class _Clips(Exception):
    """Raised when a stem does not fit into the format at this gain; *peak* is that of the block."""

    def __init__(self, peak: float) -> None:
        super().__init__(peak)
        self.peak = peak


def _write_stems(job: _Job, engine: Engine) -> float:
    """Write both stems and return the gain that they needed; 1.0 unless something would clip."""
    separated = _separated(job, engine)
    with closing(_spooling(separated, job) if job.may_clip else separated) as pairs:
        try:
            _write(job, pairs, 1.0)
            return 1.0
        except _Clips as clip:
            job.progress.repeat("write")
            peak = max([clip.peak, *(_peak(*pair) for pair in pairs)])
    # The louder stem just fits, with two steps to spare for rounding. All before the block that
    # clips fits at 1.0.
    step = 2.0 ** (1 - job.how.bits) if job.how.bits else 0.0
    headroom = 1 - 2 * step if step else 1 - 1e-6
    gain = headroom / max(peak, 1 + step)
    _write(job, _spooled(job), gain)
    return gain


def _write(job: _Job, pairs: Iterator[_Separated], gain: float) -> None:
    """Write both stems, scaled by *gain*.

    Raises:
        _Clips: one of them does not fit; neither file is there then, and *pairs* can be read on.
    """
    with (
        StemFile(job.stem("vocals"), job.how, job.song) as vocals_file,
        StemFile(job.stem("instrumental"), job.how, job.song) as instrumental_file,
        # Encoding can take longer than separating, and encoders work outside of the GIL.
        ThreadPoolExecutor(2) as threads,
    ):
        for mixture, vocals in pairs:
            with job.writing:
                written = _quantised(mixture, vocals, gain, job.how)
                for _ in threads.map(StemFile.write, (vocals_file, instrumental_file), written):
                    pass
            job.progress.did("write", mixture.shape[1])


def _spooling(pairs: Iterator[_Separated], job: _Job) -> Generator[_Separated, None, None]:
    """Pass *pairs* on and keep their vocals as raw float32, frame by frame."""
    try:
        with job.spool.open("wb") as spool:
            for mixture, vocals in pairs:
                spool.write(np.ascontiguousarray(vocals.T, np.float32).data)
                yield mixture, vocals
    except OSError as error:
        raise encoding.write_error(error, job.spool.name) from error


def _spooled(job: _Job) -> Iterator[_Separated]:
    """Yield the source's blocks, each with its vocals, once more."""
    channels = job.song.channels
    with job.spool.open("rb") as spool:
        for mixture in audio.blocks(job.source, job.song):
            vocals = np.fromfile(spool, np.float32, mixture.size).reshape(-1, channels).T
            yield mixture, vocals


def _quantised(mixture: Exact, vocals: Samples, gain: float, how: Encoding) -> _Pair:
    """Return vocals and instrumental as written: int64 of the format's bits, or floats.

    Raises:
        _Clips: one of them exceeds full scale, and the format cannot hold that.
    """
    if not how.bits:
        scaled = mixture.astype(how.dtype) * how.dtype(gain)
        floats = vocals.astype(how.dtype) * how.dtype(gain)
        rest = scaled - floats
        if how.lossy and max(np.abs(floats).max(), np.abs(rest).max()) > 1:
            raise _Clips(_peak(mixture, vocals))
        return floats, rest
    scale = gain * 2.0 ** (how.bits - 1)
    whole = np.rint(mixture * np.float64(scale)).astype(np.int64)
    voice = np.rint(vocals * np.float64(scale)).astype(np.int64)
    pair = voice, whole - voice
    highest = 2 ** (how.bits - 1) - 1
    if any(stem.max() > highest or stem.min() < -highest - 1 for stem in pair):
        raise _Clips(_peak(mixture, vocals))
    return pair


def _peak(mixture: Exact, vocals: Samples) -> float:
    return max(float(np.abs(vocals).max()), float(np.abs(mixture - vocals).max()))
