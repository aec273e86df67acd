"""The separation that fuzz targets try: the real process, with the engine dsp on one thread."""

from __future__ import annotations

import atexit
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from common.separation.child import SeparationSettings, Separator


def temporary_folder() -> Path:
    """Return a folder that goes with this process."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def started(
    model_dir: Path,
    writes: Path,
    timeout_seconds: float,
    module: str = "common.separation.child_main",
) -> Separator:
    """Start a separator whose child runs *module*; it is closed with this process."""
    settings = SeparationSettings(
        engine="dsp",
        model="",
        model_dir=model_dir,
        device="cpu",
        threads=1,
        max_audio_seconds=5,
        timeout_seconds=timeout_seconds,
        memory_bytes=0,
        writes=(writes,),
    )
    separator = Separator(settings, module=module)
    separator.start()
    atexit.register(separator.close)
    return separator


def separate(
    separator: Separator,
    source: Path,
    folder: Path,
    progress: Callable[[int], None] = lambda _percent: None,
) -> None:
    """Separate *source* into *folder*; see `Separator.separate`."""
    separator.separate(
        source,
        folder,
        model=None,
        output_format="wav",
        progress=progress,
        cancelled=threading.Event(),
    )
