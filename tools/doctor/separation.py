"""Checks one second of sound in the real separation process."""

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
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding


def check(settings: config.Settings) -> Iterator[Finding]:
    """Separate a second of sound; report the engine, the device and the speed."""
    try:
        with tempfile.TemporaryDirectory(prefix="uvr-doctor-") as folder:
            start_seconds, receipt = _separate(settings, Path(folder))
    except (SettingsInvalid, TaskError) as error:
        yield finding("separation", "fault", str(error))
        return
    engine = receipt.engine + (f" with {receipt.model}" if receipt.model else "")
    seen = f"{engine} on {receipt.device}, ready in {start_seconds:.1f} s"
    yield finding("separation", "ok", f"{seen}; wrote {settings.output_format}")
    yield from check_device(settings, receipt)
    yield check_speed(receipt)


def check_device(settings: config.Settings, receipt: Receipt) -> Iterator[Finding]:
    """Check that a requested GPU, or OpenVINO, did the work."""
    asked = settings.uvr_device
    is_wrong = asked in {"cuda", "openvino"} and receipt.device.partition("-")[0] != asked
    seen = f"UVR_DEVICE={asked}; the separation ran on {receipt.device}"
    yield finding("device", "fault" if is_wrong else "ok", seen)


def check_speed(receipt: Receipt) -> Finding:
    """Compare the time it took with the limit of 10 s."""
    seconds = receipt.seconds.separate
    seen = f"a second of sound took {seconds:.2f} s ({receipt.realtime_factor:.1f} times real time)"
    return finding("speed", "warning" if seconds > 10 else "ok", seen)


def _separate(settings: config.Settings, folder: Path) -> tuple[float, Receipt]:
    """Return the start-up time of the separation process, and the receipt of a second of sound."""
    separator = Separator(settings.separation.model_copy(update={"writes": (folder,)}))
    song, rate, began = folder / "second.wav", 44_100, time.monotonic()
    tone = (int(12_000 * math.sin(2 * math.pi * 440 * frame / rate)) for frame in range(rate))
    with wave.open(str(song), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(array.array("h", tone).tobytes())
    try:
        separator.start()
        start_seconds = time.monotonic() - began
        return start_seconds, separator.separate(
            song,
            folder,
            model=None,
            output_format=settings.output_format,
            progress=lambda _percent: None,
            cancelled=threading.Event(),
        )
    finally:
        separator.close()
