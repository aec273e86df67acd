"""One song's way from a source file to two stems and a receipt, inside the separation child.

The source is decoded three times, each time in blocks. First to know what it is; then for the
engine, whose vocals are spooled to disk as floats; then once more to write both stems, because only
now is it known whether they fit into the format, or need a common gain. At last everything that was
written is decoded again and held against the source.

The instrumental is quantised source minus quantised vocals, in integers, so that the stems add up
to the source exactly as written; rounding each by itself would be wrong by up to one step.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common import audio, encoding
from common.audio import Exact, Samples, Song
from common.encoding import Encoding, StemFile
from common.errors import SeparationFailed, TaskError
from common.messages import STEMS, Format, Receipt, Source, StageSeconds, StemName, StemPeaks
from common.separation.engine import Engine

_Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

RESIDUAL_FLOOR_DB = -200.0
#: Of the work, in percent, when each part of it is done: measured for `dsp`; slower engines are
#: nearer to theirs.
_PROBED, _SEPARATED, _WRITTEN, _CHECKED = 5, 80, 92, 100


@dataclass(frozen=True)
class Report:
    """Whom to tell on the way: the song's *seconds* once they are known, then *percent*, rising.

    *encoded* is told how many seconds the stems took to write.
    """

    seconds: Callable[[float], None]
    percent: Callable[[int], None]
    encoded: Callable[[float], None] = lambda _seconds: None

    def along(self, blocks: Iterator[Any], frames: int, begin: int, end: int) -> Iterator[Any]:
        """Yield *blocks* `[channels, frames]`, reporting between the percents *begin* and *end*."""
        done = 0
        for block in blocks:
            yield block
            done += block.shape[1]
            self.percent(begin + (end - begin) * done // frames)


@dataclass(frozen=True)
class _Job:
    """One separation: what goes in, how it is to come out, and where."""

    source: Path
    song: Song
    folder: Path
    how: Encoding
    output_format: Format
    report: Report

    def stem(self, name: StemName) -> Path:
        return self.folder / f"{name}.{self.output_format}"

    @property
    def spool(self) -> Path:
        return self.folder / "vocals.spool"


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
    report.percent(_PROBED)
    job = _Job(
        source, song, folder, encoding.choose(output_format, song.depth), output_format, report
    )
    try:
        _spool_vocals(job, engine)
        began = time.perf_counter()
        gain = _write_stems(job)
        report.encoded(time.perf_counter() - began)
    finally:
        job.spool.unlink(missing_ok=True)
    residual_db, peaks = _check(job, gain)
    report.percent(_CHECKED)
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


# -- separating ----------------------------------------------------------------------------------------------


def _spool_vocals(job: _Job, engine: Engine) -> None:
    """Write the vocals as raw float32, frame by frame."""
    frames = 0
    vocals = job.report.along(_vocals(job, engine), job.song.frames, _PROBED, _SEPARATED)
    try:
        with job.spool.open("wb") as spool:
            for block in vocals:
                spool.write(np.ascontiguousarray(block.T, np.float32).data)
                frames += block.shape[1]
    except OSError as error:
        raise encoding.write_error(error, job.spool.name) from error
    if frames != job.song.frames:
        raise SeparationFailed(f"The engine returned {frames} frames for {job.song.frames}.")


def _vocals(job: _Job, engine: Engine) -> Iterator[Samples]:
    """Run the engine on the source at a peak of 1.0, so that loudness does not decide; at the
    source's rate.
    """
    song = job.song
    # What only float64 can hold is silence to an engine; dividing by it gives no numbers.
    peak = np.float32(max(song.peak, float(np.finfo(np.float32).tiny)))
    mixture = (
        (block / peak).astype(np.float32, copy=False) for block in audio.blocks(job.source, song)
    )
    rate = engine.sample_rate or song.sample_rate
    separated = engine.vocals(audio.resampled(mixture, song.sample_rate, rate), rate)
    for block in audio.exactly(audio.resampled(separated, rate, song.sample_rate), song.frames):
        if not np.isfinite(block).all():
            raise SeparationFailed("The engine returned samples that are not numbers.")
        yield block * peak


def _spooled(job: _Job) -> Iterator[tuple[Exact, Samples]]:
    """Yield the source's blocks, each with its vocals."""
    channels = job.song.channels
    with job.spool.open("rb") as spool:
        for mixture in audio.blocks(job.source, job.song):
            vocals = np.fromfile(spool, np.float32, mixture.size).reshape(-1, channels).T
            yield mixture, vocals


# -- writing -------------------------------------------------------------------------------------------------


class _Clips(Exception):
    """Raised when a stem does not fit into the format at this gain."""


def _write_stems(job: _Job) -> float:
    """Write both stems and return the gain that they needed; 1.0 unless something would clip."""
    try:
        _write_at(job, 1.0)
    except _Clips:
        gain = _fitting_gain(job)
        _write_at(job, gain)
        return gain
    return 1.0


def _write_at(job: _Job, gain: float) -> None:
    done = 0
    with (
        StemFile(job.stem("vocals"), job.how, job.song) as vocals_file,
        StemFile(job.stem("instrumental"), job.how, job.song) as instrumental_file,
        # Encoding takes longer than separating, and encoders work outside Python's lock.
        ThreadPoolExecutor(2) as threads,
    ):
        for mixture, vocals in _spooled(job):
            written = _quantised(mixture, vocals, gain, job.how)
            for _ in threads.map(StemFile.write, (vocals_file, instrumental_file), written):
                pass
            done += mixture.shape[1]
            job.report.percent(_SEPARATED + (_WRITTEN - _SEPARATED) * done // job.song.frames)


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
            raise _Clips
        return floats, rest
    scale = gain * 2.0 ** (how.bits - 1)
    whole = np.rint(mixture * np.float64(scale)).astype(np.int64)
    voice = np.rint(vocals * np.float64(scale)).astype(np.int64)
    pair = voice, whole - voice
    highest = 2 ** (how.bits - 1) - 1
    if any(stem.max() > highest or stem.min() < -highest - 1 for stem in pair):
        raise _Clips
    return pair


def _fitting_gain(job: _Job) -> float:
    """Return the gain at which the louder stem just fits, with two steps to spare for rounding."""
    peak = 0.0
    for mixture, vocals in _spooled(job):
        peak = max(peak, float(np.abs(vocals).max()), float(np.abs(mixture - vocals).max()))
    headroom = 1 - 2.0 ** (2 - job.how.bits) if job.how.bits else 1 - 1e-6
    return headroom / peak


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
    done = 0
    source = audio.blocks(job.source, job.song)
    for mixture, vocals, instrumental in zip(
        source, vocals_blocks, instrumental_blocks, strict=True
    ):
        residual = (np.add(vocals, instrumental, dtype=np.float64) / gain - mixture).ravel()
        square += float(residual @ residual)
        vocals_peak = max(vocals_peak, float(np.abs(vocals).max()))
        instrumental_peak = max(instrumental_peak, float(np.abs(instrumental).max()))
        done += mixture.shape[1]
        job.report.percent(_WRITTEN + (_CHECKED - _WRITTEN) * done // job.song.frames)
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
    return None, StemPeaks(vocals=peaks[0], instrumental=peaks[1])
