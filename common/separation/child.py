"""The separation child, as its parent sees it: kept warm, timed, weighed, and killed when need be.

Media of strangers is decoded and separated in a process that holds no credentials and can reach
none (sandbox.py). Whatever happens to it (a segfault, the kernel's OOM killer, a codec that hangs)
is an ordinary failed task with a code, and the next task gets a fresh child.

This module stays light: only the child loads audio libraries (child_main.py).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
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
from common.files import remove_tree
from common.messages import ErrorInfo, Format, Receipt
from common.private import make_private
from common.separation import zygote
from common.separation.child_process import (
    CLOSE_SECONDS,
    ChildProcess,
    Gone,
    Lines,
    child_environment,
    ending,
)
from common.separation.protocol import Reply, SeparationSettings, Song

__all__ = ["SeparationSettings", "Separator"]

#: A deadline is three times the song, but never less than this: short songs wait for the disk, too.
MIN_DEADLINE_SECONDS = 600.0
#: Loading libraries takes a second or two; a model of 500 MB from a cold network disk, minutes.
START_SECONDS = 300.0
#: To one song: a hundred percents and a dozen others. More is a process that keeps us busy.
MAX_REPLIES = 1000


class _Child(ChildProcess):
    """The separation process of *settings*, with a folder for its temporary files.

    Where it forks, each song has a process and a pipe of its own; see zygote.py. `forks` is known
    once it is ready.
    """

    def __init__(self, settings: SeparationSettings, module: str) -> None:
        with full_disk_named(Path(tempfile.gettempdir())):
            self._folder = tempfile.mkdtemp(prefix="uvr-separation-")
        # The child makes the folder its home as well.
        own_folder = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), self._folder)
        super().__init__(
            [sys.executable, "-X", "faulthandler", "-m", module],
            child_environment(os.environ, settings.threads) | own_folder,
            new_session=True,
            takes_pipes=sys.platform == "linux",
        )
        self.forks = False
        self._song: Lines | None = None
        self.send(settings.resolved().encode())

    def reply(self, timeout_seconds: float = 0.1) -> Reply | None:
        """Return the next reply of the process itself; None when there is none yet.

        Raises:
            Gone: the child is no more.
            _NoReply: it sends something else.
        """
        return _reply(self, timeout_seconds)

    def begin(self, song: Song) -> None:
        """Let it separate *song*; the replies come from `song_reply`."""
        if not self.forks:
            self.send(song.encode())
            return
        ours, theirs = os.pipe()
        self._song = Lines(os.fdopen(ours, "rb"))
        self.send(song.encode(), theirs)
        os.close(theirs)

    def song_reply(self) -> Reply | None:
        """Return the next reply to the song; see `reply`."""
        # So often, cancelling, the deadline and the memory are checked.
        return _reply(self._song or self, 0.1)

    def end_song(self, patience_seconds: float = 0.0) -> str | None:
        """End the song's process unless it exits within *patience_seconds*; wait until it is gone.

        Returns:
            How it ended, see `ChildProcess.end`; None when that is unknown, and the child must end.
        """
        song, self._song = self._song, None
        if song is None:
            return None
        song.close()
        how = self._ended(patience_seconds)
        if how is None and self.alive():
            self.send(zygote.STOP)
            how = self._ended(CLOSE_SECONDS)
            return "killed" if how == "SIGKILL" else how
        return how

    def _ended(self, timeout_seconds: float) -> str | None:
        deadline = time.monotonic() + timeout_seconds
        try:
            while (seconds := deadline - time.monotonic()) > 0:
                reply = self.reply(seconds)
                if reply and reply.kind == "ended":
                    return ending(reply.exit_code)
        except (Gone, _NoReply):
            pass
        return None

    def talks_unasked(self) -> bool:
        """Tell whether there is a line that belongs to no song."""
        try:
            return self.receive(0.0) is not None
        except Gone:
            return False

    def song_bytes(self) -> int:
        """Return the memory of the song's process, or of the child where there is none."""
        try:
            child = psutil.Process(self.pid)
            processes = child.children(recursive=True)
            if not self.forks:
                processes.append(child)
            return sum(int(one.memory_info().rss) for one in processes)
        except psutil.Error:
            return 0  # it is gone

    def end(self, patience_seconds: float = 0.0) -> str:
        """End it and remove its folder; see `ChildProcess.end`."""
        if self._song is not None:
            self._song.close()
        try:
            return super().end(patience_seconds)
        finally:
            remove_tree(Path(self._folder))  # it does so itself, unless killed


def _reply(lines: Lines | ChildProcess, timeout_seconds: float) -> Reply | None:
    line = lines.receive(timeout_seconds)
    try:
        return None if line is None else Reply.model_validate_json(line)
    except ValidationError as error:
        raise _NoReply from error


class _NoReply(Exception):
    """Raised when the child sends a line that is not a reply."""


class Separator:
    """Separates songs, one at a time, in a warm child that it replaces whenever it is lost.

    Args:
        settings: what the child needs to know, and its limits.
        on_restart: called with the error code that cost a child or a song's process (`cancelled`
            when its song was taken back).
        on_loaded: called with the seconds that a model took to load.
        on_encoded: called with the seconds that a song's stems took to write.
        minimum_deadline_seconds: what even the shortest song may take.
        module: what the child runs; tests have one that a song takes over.
    """

    def __init__(
        self,
        settings: SeparationSettings,
        on_restart: Callable[[str], None] = lambda _reason: None,
        *,
        on_loaded: Callable[[float], None] = lambda _seconds: None,
        on_encoded: Callable[[float], None] = lambda _seconds: None,
        minimum_deadline_seconds: float = MIN_DEADLINE_SECONDS,
        module: str = "common.separation.child_main",
    ) -> None:
        self._settings = settings
        self._on_restart = on_restart
        self._on_loaded = on_loaded
        self._on_encoded = on_encoded
        self._minimum_deadline_seconds = minimum_deadline_seconds
        self._module = module
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
        self._ready, child.forks = True, reply.forks
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

    def prepare(self) -> None:
        """Have the next song's process forked; call this when a song is about to come."""
        if self._child and self._child.forks and self._ready and not self._busy:
            self._child.send(zygote.PREPARE)

    def separate(
        self,
        source: Path,
        folder: Path,
        *,
        model: str | None,
        output_format: Format,
        bitrate_kbps: int | None = None,
        bit_depth: int | None = None,
        progress: Callable[[int], None],
        cancelled: threading.Event,
    ) -> Receipt:
        """Write `vocals.<format>` and `instrumental.<format>` of *source* into *folder*.

        Args:
            source: the audio file.
            folder: where the stems go; it exists.
            model: a file in the model folder; the default model when None.
            output_format: of both stems.
            bitrate_kbps: of each stem in a lossy format; the format's default when None.
            bit_depth: of a lossless format, 32 being floats; the source's when None.
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
            bitrate_kbps=bitrate_kbps,
            bit_depth=bit_depth,
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
                make_private(folder)
            except OSError as error:
                raise SettingsInvalid(
                    f"The folder {str(folder)!r} cannot be made ({error.strerror})."
                ) from error
        self._folders = [_identity(folder) for folder in self._settings.folders]
        lost_by, self._lost_by = self._lost_by, None
        if lost_by:
            self._on_restart(lost_by)
        self._child = _Child(self._settings, self._module)
        return self._child

    def _ready_child(self, cancelled: threading.Event) -> _Child:
        child = self._child
        if child and self._busy:
            # The caller's own exception left it at work.
            self._end_song(child, "cancelled")
        elif child and not child.alive():
            self._crashed(child)
        elif child and self._ready and child.talks_unasked():
            # The song that it separated last has taken it over, and would answer for the next.
            self._lose(child, EngineCrashed.code)
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
            except _NoReply as error:
                self._lose(child, EngineCrashed.code)
                raise EngineCrashed("it sent what is not a reply.") from error
            if reply and reply.kind == "loaded":
                self._on_loaded(reply.seconds)
            elif reply:
                return reply
        self._lose(child, SeparationTimeout.code)
        raise SeparationTimeout(f"it was not ready after {START_SECONDS:g} seconds.")

    def _follow(self, run: _Run, song: Song) -> Receipt:
        """Send *song* to the child and pass on its replies until it is done, or must be ended."""
        self._busy = True
        run.child.begin(song)
        try:
            for _ in range(MAX_REPLIES):
                reply = self._next_reply(run)
                if reply.receipt or reply.error:
                    return self._finished(run.child, reply)
                self._note(run, reply)
        except Gone:
            raise self._crashed(run.child, opened=run.opened) from None
        except _NoReply as error:
            self._end_song(run.child, EngineCrashed.code)
            raise EngineCrashed("The separation process sent what is not a reply.") from error
        self._end_song(run.child, EngineCrashed.code)
        raise EngineCrashed(f"The separation process sent more than {MAX_REPLIES} replies.")

    def _finished(self, child: _Child, reply: Reply) -> Receipt:
        """Return the receipt of a song when nothing is left of its process, or raise its error."""
        self._busy = False
        error = reply.error and self._failed(child, reply.error, reply.trace)
        if child.forks and child.end_song() is None:
            self._lose(child, EngineCrashed.code)
        if error:
            raise error
        assert reply.receipt
        return reply.receipt

    def _note(self, run: _Run, reply: Reply) -> None:
        if reply.kind == "seconds":
            longest_seconds = self._settings.max_audio_seconds
            run.opened, run.song_seconds = True, min(reply.seconds, longest_seconds)
        elif reply.kind == "loaded":
            self._on_loaded(reply.seconds)
        elif reply.kind == "encoded":
            self._on_encoded(reply.seconds)
        elif reply.kind != "percent":
            raise _NoReply
        elif reply.percent > run.percent:
            run.percent = reply.percent
            run.progress(reply.percent)

    def _next_reply(self, run: _Run) -> Reply:
        """Return the next reply to the song; end the song when it must not go on."""
        while True:
            reply = run.child.song_reply()
            if error := self._overdue(run):
                self._end_song(run.child, getattr(error, "code", "cancelled"))
                raise error
            if reply is not None:
                run.begun = True
                return reply

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
        if limit_bytes and run.child.song_bytes() > limit_bytes:
            return OutOfMemory(
                f"Separation needs more than {limit_bytes} bytes (SEPARATION_MEMORY_BYTES)."
            )
        return None

    def _failed(self, child: _Child, error: ErrorInfo, trace: str | None) -> TaskError:
        if trace:
            logger.bind(trace=trace).error("The separation process failed:\n{}", trace)
        if error.code == OutOfMemory.code and not child.forks:
            # A process that ran out of memory once is in pieces; a fresh one costs two seconds.
            self._lose(child, error.code)
        return task_error(error.code, error.message, retryable=error.retryable)

    def _crashed(self, child: _Child, *, opened: bool = True) -> TaskError:
        """Find out how a song's process, or the *child*, died, after the source was *opened*."""
        of_song = child.end_song(1.0)
        how = of_song or child.end(CLOSE_SECONDS)
        error: TaskError
        if how == "SIGXCPU" and not opened:
            error = DecodeFailed("The source's headers take too long to read.")
        elif how == "SIGKILL":
            # Nobody else sends it: it is how the kernel's OOM killer ends a process.
            error = OutOfMemory(
                "The separation process was killed (SIGKILL), most likely for lack of memory."
            )
        else:
            error = EngineCrashed(f"The separation process died ({how}).")
        if of_song:
            self._note_end(error.code, of_song)
        else:
            self._lose(child, error.code)
        return error

    def _end_song(self, child: _Child, reason: str) -> None:
        """End the song's process, or the whole child where songs have none of their own."""
        if how := child.end_song():
            self._note_end(reason, how)
        else:
            self._lose(child, reason)

    def _note_end(self, reason: str, how: str) -> None:
        logger.warning("The separation of the song ended early: {} ({})", reason, how)
        self._busy = False
        self._on_restart(reason)

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
        self.percent = -1


def _identity(path: Path) -> tuple[int, int] | None:
    """Return which folder it is, not only which name it has; None when it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
