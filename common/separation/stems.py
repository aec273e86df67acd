"""One song's way from a source file to two stems and a receipt, inside the separation child.

The source is decoded three times, each time in blocks. First to know what it is; then for the
engine, while both stems are written beside it; at last everything that was written is decoded again
and held against the source. Engines lag behind by as much as a window, and so long the mixture
stays in memory.

Only at the end of a song is it known whether its stems fit into the format. They are written as if
they did; the vocals are spooled to disk as floats besides. When a stem clips, writing ends there
and the rest is only spooled; then both stems are written again from the spool, at the common gain
that they need.

The instrumental is quantised source minus quantised vocals, in integers, so that the stems add up
to the source exactly as written; rounding each by itself would be wrong by up to one step.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from common import audio, encoding
from common.audio import Exact, Samples, Song
from common.encoding import Encoding, StemFile
from common.errors import SeparationFailed, TaskError
from common.messages import STEMS, Format, Receipt, Source, StageSeconds, StemName, StemPeaks
from common.separation.engine import Engine

_Item = TypeVar("_Item")
_Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
#: A block of the source and its vocals.
_Separated: TypeAlias = tuple[Exact, Samples]
_Step: TypeAlias = Literal["probe", "separate", "write", "check"]

RESIDUAL_FLOOR_DB = -200.0
#: What progress is reckoned with: milliseconds of each step for a second of song, measured on two
#: cores.
_PROBE_MS = 0.4
_SEPARATE_MS = {"dsp": 4.0, "spleeter": 28.0, "mdx": 130.0, "audio-separator": 500.0}
_WRITE_MS: dict[Format, float] = {"wav": 0.9, "flac": 2.0, "mp3": 23.0, "m4a": 14.0, "opus": 9.0}
_CHECK_MS: dict[Format, float] = {"wav": 1.2, "flac": 2.3, "mp3": 2.2, "m4a": 1.8, "opus": 4.6}


@dataclass(frozen=True)
class Report:
    """Whom to tell on the way: the song's *seconds* once they are known, then *percent*, rising.

    *encoded* is told how many seconds the stems took to write.
    """

    seconds: Callable[[float], None]
    percent: Callable[[int], None]
    encoded: Callable[[float], None] = lambda _seconds: None


class _Progress:
    """Tells how much of a song's work is done, in percent; what turns up later makes it slower,
    never fall.
    """

    def __init__(self, tell: Callable[[int], None], cost: dict[_Step, float], frames: int) -> None:
        self._tell = tell
        self._cost = cost
        self._done: Counter[_Step] = Counter()
        self._left = frames * sum(cost.values())
        self._percent = 0.0

    def did(self, step: _Step, frames: int) -> None:
        """Count so many *frames* of the *step* as done."""
        self._done[step] += frames
        work = min(frames * self._cost[step], self._left)
        if work:
            self._percent += (100 - self._percent) * work / self._left
            self._left -= work
        self._tell(int(self._percent))

    def again(self, step: _Step) -> None:
        """Count as to be done what of the *step* was done in vain."""
        self._left += self._done.pop(step, 0) * self._cost[step]


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
    """One separation: what goes in, how it is to come out, and where."""

    source: Path
    song: Song
    folder: Path
    how: Encoding
    output_format: Format
    progress: _Progress
    writing: _Stopwatch

    def stem(self, name: StemName) -> Path:
        return self.folder / f"{name}.{self.output_format}"

    @property
    def spool(self) -> Path:
        return self.folder / "vocals.spool"

    @property
    def may_clip(self) -> bool:
        """Whether there is anything that the format cannot hold; floats hold everything."""
        return self.how.bits > 0 or self.how.lossy


def separate(
    engine: Engine,
    source: Path,
    folder: Path,
    output_format: Format,
    max_seconds: float,
    report: Report,
) -> Receipt:
    """Write `vocals.<format>` and `instrumental.<format>` of *source* into *folder*.

    Raises:
        InputEmpty, NoAudio, AudioTooLong, DecodeFailed: see `audio.probe`.
        SeparationFailed: the engine failed, or the stems fail their own check.
        DiskFull, EncodeFailed: the stems cannot be written.
    """
    started = time.perf_counter()
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    song = audio.probe(source, max_seconds)
    report.seconds(song.seconds)
    how = encoding.choose(output_format, song.depth)
    progress = _Progress(report.percent, _cost(engine.name, output_format), song.frames)
    progress.did("probe", song.frames)
    job = _Job(source, song, folder, how, output_format, progress, _Stopwatch())
    try:
        gain = _write_stems(job, engine)
    finally:
        job.spool.unlink(missing_ok=True)
    report.encoded(job.writing.seconds)
    residual_db, peaks = _check(job, gain)
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


def _cost(engine: str, output_format: Format) -> dict[_Step, float]:
    """Return what each step takes for a frame, in proportion to the others."""
    return {
        "probe": _PROBE_MS,
        "separate": _SEPARATE_MS.get(engine, _SEPARATE_MS["mdx"]),
        "write": _WRITE_MS[output_format],
        "check": _CHECK_MS[output_format],
    }


# -- separating ----------------------------------------------------------------------------------------------


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
    """Run the engine on *blocks* at a peak of 1.0, so that loudness does not decide; at the
    source's rate.
    """
    song = job.song
    # What only float64 can hold is silence to an engine; dividing by it gives no numbers.
    peak = np.float32(max(song.peak, float(np.finfo(np.float32).tiny)))
    mixture = ((block / peak).astype(np.float32, copy=False) for block in blocks)
    rate = engine.sample_rate or song.sample_rate
    separated = engine.vocals(audio.resampled(mixture, song.sample_rate, rate), rate)
    resampled = audio.resampled(separated, rate, song.sample_rate)
    for block in audio.exactly(resampled, song.frames):
        if len(block) != song.channels:
            raise SeparationFailed(
                f"The engine returned {len(block)} channels for {song.channels}."
            )
        if not np.isfinite(block).all():
            raise SeparationFailed("The engine returned samples that are not numbers.")
        # In its place: it is ours, and may be a minute long.
        yield np.multiply(block, peak, out=block)


def _twice(items: Iterator[_Item]) -> tuple[Iterator[_Item], Iterator[_Item]]:
    """Let two read *items*, holding only what one of them has read; `itertools.tee` holds up to 57
    more.
    """
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


# -- writing -------------------------------------------------------------------------------------------------


class _Clips(Exception):
    """Raised when a stem does not fit into the format at this gain; *peak* is that of what does not
    fit.
    """

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
            job.progress.again("write")
            peak = max([clip.peak, *(_peak(*pair) for pair in pairs)])
    gain = _fitting_gain(job, peak)
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
        # Encoding takes longer than separating, and encoders work outside Python's lock.
        ThreadPoolExecutor(2) as threads,
    ):
        for mixture, vocals in pairs:
            with job.writing:
                written = _quantised(mixture, vocals, gain, job.how)
                for _ in threads.map(StemFile.write, (vocals_file, instrumental_file), written):
                    pass
            job.progress.did("write", mixture.shape[1])


def _spooling(pairs: Iterator[_Separated], job: _Job) -> Generator[_Separated, None, None]:
    """Pass *pairs* on, whose vocals are kept as raw float32, frame by frame."""
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
    """Return vocals and instrumental as they are written: int64 of the format's bits, or floats.

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


def _fitting_gain(job: _Job, peak: float) -> float:
    """Return the gain at which the louder stem just fits, with two steps to spare for rounding.

    *peak* is that from where something clips; all before it fits at 1.0, so to one step it is not
    above full scale.
    """
    step = 2.0 ** (1 - job.how.bits) if job.how.bits else 0.0
    headroom = 1 - 2 * step if step else 1 - 1e-6
    return headroom / max(peak, 1 + step)


# -- checking ------------------------------------------------------------------------------------------------


def _check(job: _Job, gain: float) -> tuple[float | None, StemPeaks]:
    """Measure the stems on the files as written: the residual in dB (None for lossy formats), and
    peaks.

    Raises:
        SeparationFailed: they are not what they must be; nothing of them may be published.
    """
    try:
        return _measured_lossy(job) if job.how.lossy else _measured(job, gain)
    except TaskError as error:
        if isinstance(error, SeparationFailed):
            raise
        raise SeparationFailed(f"The stems as written fail their check: {error.message}") from error


def _measured(job: _Job, gain: float) -> tuple[float, StemPeaks]:
    written = replace(job.song, depth=job.how.depth)
    vocals_blocks, instrumental_blocks = (audio.blocks(job.stem(name), written) for name in STEMS)
    square, vocals_peak, instrumental_peak = 0.0, 0.0, 0.0
    source = audio.blocks(job.source, job.song)
    for mixture, vocals, instrumental in zip(
        source, vocals_blocks, instrumental_blocks, strict=True
    ):
        residual = (np.add(vocals, instrumental, dtype=np.float64) / gain - mixture).ravel()
        square += float(residual @ residual)
        vocals_peak = max(vocals_peak, float(np.abs(vocals).max()))
        instrumental_peak = max(instrumental_peak, float(np.abs(instrumental).max()))
        job.progress.did("check", mixture.shape[1])
    residual_db = _db(np.sqrt(square / (job.song.frames * job.song.channels)))
    step = 2.0 ** (1 - job.how.bits) if job.how.bits else 2.0**-23 * max(1.0, job.song.peak)
    if residual_db > _db(step / gain):
        raise SeparationFailed(f"The stems as written miss the source by {residual_db:.1f} dB.")
    return residual_db, StemPeaks(vocals=vocals_peak, instrumental=instrumental_peak)


def _db(amplitude: float) -> float:
    return float(max(RESIDUAL_FLOOR_DB, 20 * np.log10(max(amplitude, 1e-12))))


#: The longest frame of the lossy codecs: AAC's 1024 frames, Opus's 20 ms, MP3's 1152, at the
#: written rate.
_CODEC_FRAME = 1152


def _measured_lossy(job: _Job) -> tuple[None, StemPeaks]:
    peaks = []
    for name in STEMS:
        written = audio.probe(job.stem(name), job.song.seconds + 1)
        if abs(written.seconds - job.song.seconds) * written.sample_rate > _CODEC_FRAME:
            raise SeparationFailed(
                f"The {name} as written last {written.seconds:.3f} s instead of {job.song.seconds:.3f} s."
            )
        peaks.append(written.peak)
        job.progress.did("check", job.song.frames // len(STEMS))
    return None, StemPeaks(vocals=peaks[0], instrumental=peaks[1])
