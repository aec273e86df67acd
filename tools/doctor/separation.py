"""One second of sound through the real separation process."""

from __future__ import annotations

import array
import math
import tempfile
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import config
from common.errors import SettingsInvalid, TaskError
from common.messages import Receipt
from common.separation.child import Separator
from tools.doctor import catalogue
from tools.doctor.finding import Finding

RATE = 44_100
SLOW_SECONDS = 10.0


def check(settings: config.Settings) -> Iterator[Finding]:
    """Separate it, and say by what and how fast."""
    try:
        with tempfile.TemporaryDirectory(prefix="uvr-doctor-") as folder:
            started_seconds, receipt = _separate(settings, Path(folder))
    except (SettingsInvalid, TaskError) as error:
        yield catalogue.SEPARATION.fault(str(error))
        return
    by = f"{receipt.engine}{f' with {receipt.model}' if receipt.model else ''} on {receipt.device}"
    yield catalogue.SEPARATION.ok(
        f"{by}, ready in {started_seconds:.1f} s; {settings.output_format} written"
    )
    yield from check_device(settings, receipt)
    yield check_speed(receipt)


def check_device(settings: config.Settings, receipt: Receipt) -> Iterator[Finding]:
    """See that a GPU that was asked for did the work."""
    seen = f"UVR_DEVICE={settings.uvr_device}: {receipt.device} computed"
    is_wrong = settings.uvr_device == "cuda" and receipt.device != "cuda"
    yield (catalogue.DEVICE.fault if is_wrong else catalogue.DEVICE.ok)(seen)


def check_speed(receipt: Receipt) -> Finding:
    """Compare a second of sound with the time that it took."""
    seconds = receipt.seconds.separate
    seen = f"a second of sound took {seconds:.2f} s ({receipt.realtime_factor:.1f} times real time)"
    return (catalogue.SPEED.warning if seconds > SLOW_SECONDS else catalogue.SPEED.ok)(seen)


def _separate(settings: config.Settings, folder: Path) -> tuple[float, Receipt]:
    """Return how many seconds the process took to be ready, and the receipt of a second of sound."""
    separator = Separator(settings.separation.model_copy(update={"writes": (folder,)}))
    song, began = folder / "second.wav", time.monotonic()
    _write_second(song)
    try:
        separator.start()
        started_seconds = time.monotonic() - began
        return started_seconds, separator.separate(
            song,
            folder,
            model=None,
            output_format=settings.output_format,
            progress=lambda _percent: None,
            cancelled=threading.Event(),
        )
    finally:
        separator.close()


def _write_second(file: Path) -> None:
    tone = (int(12_000 * math.sin(2 * math.pi * 440 * frame / RATE)) for frame in range(RATE))
    with wave.open(str(file), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(array.array("h", tone).tobytes())
