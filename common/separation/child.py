"""The separation child, as its parent sees it: kept warm, timed, weighed, and killed when need be.

Media of strangers is decoded and separated in a process that holds no credentials and can reach
none (sandbox.py). Whatever happens to it (a segfault, the kernel's OOM killer, a codec that hangs)
is an ordinary failed task with a code, and the next task gets a fresh child.

This module stays light: only the child loads audio libraries (child_main.py).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from loguru import logger
from pydantic import ValidationError

from common.disk import full_disk_named
from common.errors import (
    Cancelled,
    DecodeFailed,
    DiskFull,
    EngineCrashed,
    OutOfMemory,
    SeparationTimeout,
    SettingsInvalid,
    TaskError,
    task_error,
)
from common.messages import ErrorInfo, Format, Receipt
from common.separation.child_process import CLOSE_SECONDS, ChildProcess, Gone, child_environment
from common.separation.protocol import Reply, SeparationSettings, Song

__all__ = ["SeparationSettings", "Separator"]

#: A deadline is three times the song, but never less than this: short songs wait for the disk, too.
MIN_DEADLINE_SECONDS = 600.0
#: Loading libraries takes a second or two; a model of 500 MB from a cold network disk, minutes.
START_SECONDS = 300.0


class _Child(ChildProcess):
    """The separation process of *settings*, with a folder for its temporary files."""

    def __init__(self, settings: SeparationSettings) -> None:
        with full_disk_named(Path(tempfile.gettempdir())):
            self._folder = tempfile.mkdtemp(prefix="uvr-separation-")
        # The child makes the folder its home as well.
        own_folder = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), self._folder)
        super().__init__(
            [sys.executable, "-X", "faulthandler", "-m", "common.separation.child_main"],
            child_environment(os.environ, settings.threads) | own_folder,
            new_session=True,
        )
        self.send(settings.resolved().encode())

    def reply(self) -> Reply | None:
        """Return the next reply; None when there is none yet.

        Raises:
            Gone: the child is no more, or sends something else.
        """
        line = self.receive(0.1)  # so often, cancelling, the deadline and the memory are checked
        try:
            return None if line is None else Reply.model_validate_json(line)
        except ValidationError as error:
            logger.error("The separation process sent a line that is not a reply; it is ended")
            raise Gone from error

    def end(self, patience_seconds: float = 0.0) -> str:
        """End it and remove its folder; see `ChildProcess.end`."""
        try:
            return super().end(patience_seconds)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)  # it does so itself, unless killed


class Separator:
    """Separates songs, one at a time, in a warm child that it replaces whenever it is lost.

    Args:
        settings: what the child needs to know, and its limits.
        on_restart: called with the error code that cost the last child (`cancelled` when its song
            was taken back).
        on_loaded: called with the seconds that a model took to load.
        on_encoded: called with the seconds that a song's stems took to write.
        minimum_deadline_seconds: what even the shortest song may take.
    """

    def __init__(
        self,
        settings: SeparationSettings,
        on_restart: Callable[[str], None] = lambda _reason: None,
        *,
        on_loaded: Callable[[float], None] = lambda _seconds: None,
        on_encoded: Callable[[float], None] = lambda _seconds: None,
        minimum_deadline_seconds: float = MIN_DEADLINE_SECONDS,
    ) -> None:
        self._settings = settings
        self._on_restart = on_restart
        self._on_loaded = on_loaded
        self._on_encoded = on_encoded
        self._minimum_deadline_seconds = minimum_deadline_seconds
        self._child: _Child | None = None
        self._folders: list[tuple[int, int] | None] = []
        self._ready = self._busy = False
        self._lost_by: str | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child else None

    def start(self, cancelled: threading.Event | None = None) -> None:
        """Start the child and wait until it has loaded its libraries and the default model.

        Args:
            cancelled: set by another thread to end the wait; the child goes on loading.

        Raises:
            SettingsInvalid: the settings cannot work here: no such model, no such device, engine
                not installed.
            Cancelled: *cancelled* was set.
        """
        try:
            child = self._child or self._new_child()
            reply = self._await_ready(child, cancelled or threading.Event())
        except TaskError as error:
            raise SettingsInvalid(
                f"The separation process does not start: {error.message}"
            ) from error
        if reply.kind != "ready":
            self.close()
            detail = reply.error.message if reply.error else "no reason given"
            raise SettingsInvalid(f"The separation process does not start: {detail}")
        self._ready = True
        if reply.left_open:
            logger.warning(
                "This system does not keep the separation process from {}",
                ", ".join(reply.left_open),
            )

    def warm_up(self) -> None:
        """Start a child for the next song if the last one was lost, without waiting for it."""
        if self._child is None:
            try:
                self._new_child()
            except (DiskFull, SettingsInvalid, OSError) as error:
                logger.warning("The separation process starts with the next song: {}", error)

    def separate(
        self,
        source: Path,
        folder: Path,
        *,
        model: str | None,
        output_format: Format,
        progress: Callable[[int], None],
        cancelled: threading.Event,
    ) -> Receipt:
        """Write `vocals.<format>` and `instrumental.<format>` of *source* into *folder*.

        Args:
            source: the audio file.
            folder: where the stems go; it exists.
            model: a file in the model folder; the default model when None.
            output_format: of both stems.
            progress: called with rising percents, on this thread.
            cancelled: set by another thread when the result is no longer wanted.

        Raises:
            Cancelled: *cancelled* was set; a child that had begun is gone.
            SeparationTimeout: it took longer than max(600, 3 x the song's seconds), or than the
                setting allows.
            OutOfMemory: it needed more memory than it may have, or than there was.
            EngineCrashed: the child died.
            TaskError: whatever else was wrong, as the child found it.
        """
        song = Song(
            source=source.resolve(),
            folder=folder.resolve(),
            model=model,
            output_format=output_format,
        )
        for may_retry in (True, False):
            run = _Run(self._ready_child(cancelled), progress, cancelled)
            try:
                return self._follow(run, song)
            except (OutOfMemory, EngineCrashed):
                # A child that was dying before it read the song: the song is not to blame.
                if run.begun or not may_retry:
                    raise
        raise AssertionError

    def close(self) -> None:
        """Hang up on the child; it may be started again."""
        child, self._child, self._ready, self._busy = self._child, None, False, False
        if child:
            child.close()

    def _new_child(self) -> _Child:
        for folder in self._settings.writes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsInvalid(
                    f"The folder {str(folder)!r} cannot be made ({error.strerror})."
                ) from error
        self._folders = [_identity(folder) for folder in self._settings.folders]
        lost_by, self._lost_by = self._lost_by, None
        if lost_by:
            self._on_restart(lost_by)
        self._child = _Child(self._settings)
        return self._child

    def _ready_child(self, cancelled: threading.Event) -> _Child:
        child = self._child
        if child and self._busy:
            # The caller's own exception left it at work; its replies belong to another song.
            self._lose(child, "cancelled")
        elif child and not child.alive():
            self._crashed(child)
        elif child and [_identity(path) for path in self._settings.folders] != self._folders:
            # A folder was removed and made again: the child may only open the earlier one.
            self._lose(child, "cancelled")
        if self._child is None or not self._ready:
            try:
                self.start(cancelled)
            except SettingsInvalid as error:
                # They were valid when the process started, so the machine is at fault.
                raise EngineCrashed(str(error)) from error
        assert self._child is not None
        return self._child

    def _await_ready(self, child: _Child, cancelled: threading.Event) -> Reply:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if cancelled.is_set():
                raise Cancelled
            try:
                reply = child.reply()
            except Gone:
                raise self._crashed(child) from None
            if reply and reply.kind == "loaded":
                self._on_loaded(reply.seconds)
            elif reply:
                return reply
        self._lose(child, SeparationTimeout.code)
        raise SeparationTimeout(f"it was not ready after {START_SECONDS:g} seconds.")

    def _follow(self, run: _Run, song: Song) -> Receipt:
        """Send *song* to the child and pass on its replies until it is done, or must be ended."""
        self._busy = True
        run.child.send(song.encode())
        while True:
            try:
                reply = run.child.reply()
            except Gone:
                raise self._crashed(run.child, opened=run.opened) from None
            if reply is not None:
                run.begun = True
                self._busy = not (reply.receipt or reply.error)
                if reply.receipt:
                    return reply.receipt
                if reply.error:
                    raise self._failed(run.child, reply.error, reply.trace)
                if reply.kind == "seconds":
                    run.opened, run.song_seconds = True, reply.seconds
                elif reply.kind == "loaded":
                    self._on_loaded(reply.seconds)
                elif reply.kind == "encoded":
                    self._on_encoded(reply.seconds)
                else:
                    run.progress(reply.percent)
            if error := self._overdue(run):
                self._lose(run.child, getattr(error, "code", "cancelled"))
                raise error

    def _overdue(self, run: _Run) -> Cancelled | TaskError | None:
        """Return why *run* must be ended; None when it may go on."""
        if run.cancelled.is_set():
            return Cancelled("The separation is no longer ours.")
        seconds = min(
            max(self._minimum_deadline_seconds, 3.0 * run.song_seconds),
            self._settings.timeout_seconds,
        )
        if time.monotonic() - run.started > seconds:
            return SeparationTimeout(f"Separation took longer than {seconds:g} seconds.")
        limit_bytes = self._settings.memory_bytes
        if limit_bytes and run.child.resident_bytes() > limit_bytes:
            return OutOfMemory(
                f"Separation needs more than {limit_bytes} bytes (SEPARATION_MEMORY_BYTES)."
            )
        return None

    def _failed(self, child: _Child, error: ErrorInfo, trace: str | None) -> TaskError:
        if trace:
            logger.bind(trace=trace).error("The separation process failed:\n{}", trace)
        if error.code == OutOfMemory.code:
            # A process that ran out of memory once is in pieces; a fresh one costs two seconds.
            self._lose(child, error.code)
        return task_error(error.code, error.message, retryable=error.retryable)

    def _crashed(self, child: _Child, *, opened: bool = True) -> TaskError:
        """Find out how the *child* died by itself, before or after it had *opened* the source."""
        ending = child.end(CLOSE_SECONDS)
        error: TaskError
        if ending == "SIGXCPU" and not opened:
            error = DecodeFailed("The source's headers take too long to read.")
        elif ending == "SIGKILL":
            # Nobody else sends it: it is how the kernel's OOM killer ends a process.
            error = OutOfMemory(
                "The separation process was killed (SIGKILL), most likely for lack of memory."
            )
        else:
            error = EngineCrashed(f"The separation process died ({ending}).")
        self._lose(child, error.code)
        return error

    def _lose(self, child: _Child, reason: str) -> None:
        logger.warning("The separation process {} is gone: {} ({})", child.pid, reason, child.end())
        self._child, self._ready, self._busy, self._lost_by = None, False, False, reason


class _Run:
    """One song in the child."""

    def __init__(
        self, child: _Child, progress: Callable[[int], None], cancelled: threading.Event
    ) -> None:
        self.child = child
        self.progress = progress
        self.cancelled = cancelled
        self.started = time.monotonic()
        #: Whether the child has answered, and whether it has read the source's headers.
        self.begun = self.opened = False
        self.song_seconds = 0.0


def _identity(path: Path) -> tuple[int, int] | None:
    """Return which folder it is, not only which name it has; None when it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
