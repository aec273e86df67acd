"""The separation child, as its parent sees it: spawned, kept warm, timed, weighed, and killed when
need be.

Media of strangers is decoded and separated in a process of its own, which holds no credentials, can
reach none (sandbox.py) and is told file names over a pipe. Whatever happens to it (a segfault, the
kernel's OOM killer, a codec that hangs) is an ordinary failed task with a code, and the next task
gets a fresh child.

This module stays light: audio libraries are loaded in the child alone (child_main.py).
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from loguru import logger
from pydantic import ValidationError

from common.disk import full_disk_named
from common.errors import (
    Cancelled,
    DecodeFailed,
    EngineCrashed,
    OutOfMemory,
    SeparationTimeout,
    SettingsInvalid,
    TaskError,
    task_error,
)
from common.messages import ErrorInfo, Format, Message, Receipt

ROOT = Path(__file__).resolve().parents[2]
#: The environment of the optional engine, which it starts a process of its own from.
AUDIO_SEPARATOR_FOLDER = ROOT / ".venv-audio-separator"

#: What Python, its libraries and a GPU's need of the environment. Everything else stays here, above
#: all the passwords of Kafka and S3. (An allow-list: nobody knows every name that a secret may
#: have.)
ENVIRONMENT = frozenset(
    {
        *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
        *("PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *(
            "TMP",
            "TEMP",
            "SYSTEMROOT",
            "SYSTEMDRIVE",
            "WINDIR",
            "COMSPEC",
            "PATHEXT",
            "USERPROFILE",
        ),
        *("APPDATA", "LOCALAPPDATA", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH"),
        *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    }
)
#: Of the folder for temporary files; the child makes it its home as well.
_FOLDER_VARIABLES = ("TMPDIR", "TMP", "TEMP")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: A deadline is three times the song, but never less than this: short songs wait for the disk, too.
MINIMUM_DEADLINE_SECONDS = 600.0
DEADLINE_PER_SONG = 3.0
#: Loading libraries takes a second or two; a model of 500 MB from a cold network disk takes
#: minutes.
START_SECONDS = 300.0
CLOSE_SECONDS = 5.0
#: No reply of the child's own is as long; a line without an end would fill the parent's memory.
MAX_LINE_BYTES = 1 << 20
#: How often cancelling, the deadline and the memory are looked at.
SLICE_SECONDS = 0.1


@dataclass(frozen=True)
class SeparationSettings:
    """What the separation child needs to know; `memory_bytes` and `threads` 0 mean no limit and all
    cores.

    Where the system can hold it to that, the child opens no files but those of `model_dir`, what
    lies in `reads` and `writes` (sources in either, stems in the latter), and what Python needs.
    """

    engine: str
    model: str
    model_dir: Path
    device: str
    threads: int
    max_audio_seconds: float
    timeout_seconds: float
    memory_bytes: int
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]


class Setup(Message):
    """The first line to the child."""

    engine: str
    model: str
    model_dir: str
    device: str
    threads: int
    max_audio_seconds: float
    timeout_seconds: float
    memory_bytes: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class Order(Message):
    """Each further line to the child: one song."""

    source: str
    folder: str
    model: str | None
    output_format: Format


class Reply(Message):
    """One line from the child: ready once, then for each order percents from 0, seconds, and a
    receipt or an error.

    `loaded` and `encoded` say how many seconds a model and the stems took; a model is loaded before
    `ready`, too. `bad_setting` is the answer to a Setup that cannot work; `trace` is for the log
    and for nobody else. `left_open` comes with `ready`: what the system could not close to the
    child.
    """

    kind: Literal[
        "ready", "bad_setting", "loaded", "seconds", "percent", "encoded", "receipt", "error"
    ]
    seconds: float = 0.0
    percent: int = 0
    receipt: Receipt | None = None
    error: ErrorInfo | None = None
    trace: str | None = None
    left_open: tuple[str, ...] = ()


class _Gone(Exception):
    """Raised when the child's pipe has ended."""


class _Child:
    """One child process, its folder for what it must put somewhere, and the thread that reads its
    replies.
    """

    def __init__(self, setup: Setup) -> None:
        with full_disk_named():
            self._folder = tempfile.mkdtemp(prefix="uvr-separation-")
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "common.separation.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=child_environment(os.environ, setup.threads)
            | dict.fromkeys(_FOLDER_VARIABLES, self._folder),
            close_fds=True,
            # Out of the terminal's group: Ctrl-C is the parent's to answer.
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="separation-replies", daemon=True)
        self._reader.start()
        self.send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Write one line; a child that is gone shows in `receive`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(message.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._replies.put(None)

    def receive(self, timeout_seconds: float) -> Reply | None:
        """Return the next reply, None when there is none yet.

        Raises:
            _Gone: the child is no more.
        """
        try:
            reply = self._replies.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if reply is None:
            raise _Gone
        return reply

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in iter(lambda: lines.readline(MAX_LINE_BYTES), b""):
                try:
                    self._replies.put(Reply.model_validate_json(line))
                except ValidationError:
                    logger.error(
                        "The separation process sent a line that is no reply; it is given up"
                    )
                    break
        self._replies.put(None)

    def resident_bytes(self) -> int:
        """Return how much memory it holds, and the process that an engine may have; 0 when it is
        gone.
        """
        try:
            child = psutil.Process(self.pid)
            return sum(int(process.memory_info().rss) for process in (child, *child.children()))
        except psutil.Error:
            return 0

    def end(self, patience_seconds: float = 0.0) -> str:
        """Make sure that it is gone, and say how it went: `killed` by us, a signal's name, or an
        exit code.

        *patience_seconds* is what one that has hung up may take to die by itself.
        """
        try:
            code = self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "killed"
        finally:
            self._hang_up()
            self._clear()
        if code < 0:
            return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"exit code {code}"

    def close(self) -> None:
        """Let it go by itself, which it does when its pipe ends; kill it if it does not."""
        self._hang_up()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
        self._clear()

    def _clear(self) -> None:
        # It removes its folder itself, unless something killed it.
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            logger.debug("The separation process was gone before its pipe was closed")


def child_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return what of the *parent*'s environment the child may see, and how many *threads* it may
    use.
    """
    scrubbed = {name: value for name, value in parent.items() if name.upper() in ENVIRONMENT}
    if threads:
        scrubbed |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return scrubbed


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Separator:
    """Separates songs, one at a time, in a warm child process that it replaces whenever it is lost.

    Args:
        settings: what the child needs to know, and its limits.
        on_restart: called with the error code that cost the last child (`cancelled` when we took it
            back).
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
        minimum_deadline_seconds: float = MINIMUM_DEADLINE_SECONDS,
    ) -> None:
        self._settings = settings
        self._on_restart = on_restart
        self._on_loaded = on_loaded
        self._on_encoded = on_encoded
        self._minimum_deadline_seconds = minimum_deadline_seconds
        self._child: _Child | None = None
        self._reached: list[tuple[int, int] | None] = []
        self._busy = False  # with an order that has no answer yet
        self._heard = False  # of that order
        self._opened = False  # its source, whose headers have been read
        self._lost_by: str | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the child and wait until it has loaded its libraries and the default model.

        Raises:
            SettingsInvalid: the settings cannot work here: no such model, no such device, engine
                not installed.
        """
        self._make_folders()
        self._reached = self._identities()
        try:
            self._child = _Child(self._setup())
            reply = self._await_ready(self._child)
        except TaskError as error:
            raise SettingsInvalid(
                f"The separation process does not start: {error.message}"
            ) from error
        if reply.kind != "ready":
            self.close()
            detail = reply.error.message if reply.error else "no reason given"
            raise SettingsInvalid(f"The separation process does not start: {detail}")
        if reply.left_open:
            logger.warning(
                "This system does not keep the separation process from {}",
                ", ".join(reply.left_open),
            )

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
            Cancelled: *cancelled* was set; the child is gone.
            SeparationTimeout: it took longer than max(600, 3 x the song's seconds), or than the
                setting allows.
            OutOfMemory: it needed more memory than it may have, or than there was.
            EngineCrashed: the child died.
            TaskError: whatever else was wrong, as the child found it.
        """
        order = Order(
            source=str(source.resolve()),
            folder=str(folder.resolve()),
            model=model,
            output_format=output_format,
        )
        try:
            return self._ordered(order, progress, cancelled)
        except (OutOfMemory, EngineCrashed):
            if self._heard:
                raise
            # It was dying before it read the order; the song is not to blame.
            return self._ordered(order, progress, cancelled)

    def close(self) -> None:
        """Let the child go; it may be started again."""
        child, self._child, self._busy = self._child, None, False
        if child:
            child.close()

    def _make_folders(self) -> None:
        for folder in self._settings.writes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsInvalid(
                    f"The folder {str(folder)!r} cannot be made ({error.strerror})."
                ) from error

    def _identities(self) -> list[tuple[int, int] | None]:
        """Say which folders they are: what a child may open are these very ones, not others of the
        same name.
        """
        settings = self._settings
        return [
            _identity(folder) for folder in (settings.model_dir, *settings.reads, *settings.writes)
        ]

    def _setup(self) -> Setup:
        settings = self._settings
        return Setup(
            engine=settings.engine,
            model=settings.model,
            model_dir=str(settings.model_dir.resolve()),
            device=settings.device,
            threads=settings.threads,
            max_audio_seconds=settings.max_audio_seconds,
            timeout_seconds=settings.timeout_seconds,
            memory_bytes=settings.memory_bytes,
            reads=tuple(str(path.resolve()) for path in settings.reads),
            writes=tuple(str(path.resolve()) for path in settings.writes),
        )

    def _ready_child(self) -> _Child:
        if self._child and self._busy:
            # An exception of the caller's left it at work; its replies would be taken for the next
            # song's.
            self._lose(self._child, "cancelled")
        elif self._child and not self._child.alive():
            self._crashed(self._child)
        elif self._child and self._identities() != self._reached:
            # A folder was removed and made again; to the child it is a strange one.
            self._lose(self._child, "cancelled")
        if self._child is None:
            if self._lost_by:
                self._on_restart(self._lost_by)
            try:
                self.start()
            except SettingsInvalid as error:
                # They were valid when the process started: this is about the machine, not about the
                # settings.
                raise EngineCrashed(str(error)) from error
        assert self._child is not None
        return self._child

    def _ordered(
        self, order: Order, progress: Callable[[int], None], cancelled: threading.Event
    ) -> Receipt:
        child = self._ready_child()
        self._busy, self._heard, self._opened = True, False, False
        child.send(order)
        return self._follow(child, progress, cancelled)

    def _await_ready(self, child: _Child) -> Reply:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                reply = child.receive(SLICE_SECONDS)
            except _Gone:
                raise self._crashed(child) from None
            if reply and reply.kind == "loaded":
                self._on_loaded(reply.seconds)
            elif reply:
                return reply
        self._lose(child, SeparationTimeout.code)
        raise SeparationTimeout(f"it was not ready after {START_SECONDS:g} seconds.")

    def _follow(
        self, child: _Child, progress: Callable[[int], None], cancelled: threading.Event
    ) -> Receipt:
        """Pass on what the child says until it is done, or must be ended."""
        started = time.monotonic()
        limit_seconds = self._limit_seconds(0.0)
        while True:
            try:
                reply = child.receive(SLICE_SECONDS)
            except _Gone:
                raise self._crashed(child) from None
            self._heard |= reply is not None
            self._busy = not (reply and (reply.receipt or reply.error))
            if reply and reply.receipt:
                return reply.receipt
            if reply and reply.error:
                raise self._failed(child, reply.error, reply.trace)
            if reply and reply.kind == "seconds":
                self._opened = True
                limit_seconds = self._limit_seconds(reply.seconds)
            elif reply:
                self._tell(reply, progress)
            self._enforce(child, cancelled, started, limit_seconds)

    def _tell(self, reply: Reply, progress: Callable[[int], None]) -> None:
        """Pass on a *reply* that changes nothing."""
        if reply.kind == "loaded":
            self._on_loaded(reply.seconds)
        elif reply.kind == "encoded":
            self._on_encoded(reply.seconds)
        else:
            progress(reply.percent)

    def _limit_seconds(self, song_seconds: float) -> float:
        wanted_seconds = max(self._minimum_deadline_seconds, DEADLINE_PER_SONG * song_seconds)
        return min(wanted_seconds, self._settings.timeout_seconds)

    def _enforce(
        self, child: _Child, cancelled: threading.Event, started: float, limit_seconds: float
    ) -> None:
        """End the child if it must not go on."""
        if cancelled.is_set():
            self._lose(child, "cancelled")
            raise Cancelled("The separation is no longer ours.")
        if time.monotonic() - started > limit_seconds:
            self._lose(child, SeparationTimeout.code)
            raise SeparationTimeout(f"Separation took longer than {limit_seconds:g} seconds.")
        limit_bytes = self._settings.memory_bytes
        if limit_bytes and child.resident_bytes() > limit_bytes:
            self._lose(child, OutOfMemory.code)
            raise OutOfMemory(
                f"Separation needs more than {limit_bytes} bytes (SEPARATION_MEMORY_BYTES)."
            )

    def _failed(self, child: _Child, error: ErrorInfo, trace: str | None) -> TaskError:
        if trace:
            logger.bind(trace=trace).error(
                "The separation process met a fault of its own:\n{}", trace
            )
        if error.code == OutOfMemory.code:
            # What failed to get memory once is in pieces; a fresh one costs two seconds.
            self._lose(child, error.code)
        return task_error(error.code, error.message, retryable=error.retryable)

    def _crashed(self, child: _Child) -> TaskError:
        """Find out how the *child* died by itself."""
        ending = child.end(CLOSE_SECONDS)
        if ending == "SIGXCPU" and not self._opened:
            self._lose(child, DecodeFailed.code)
            return DecodeFailed("The source's headers take too long to read.")
        # Nobody else sends SIGKILL: it is how the kernel's OOM killer ends a process.
        killed = ending == "SIGKILL"
        self._lose(child, OutOfMemory.code if killed else EngineCrashed.code)
        if killed:
            return OutOfMemory(
                "The separation process was killed (SIGKILL), most likely for lack of memory."
            )
        return EngineCrashed(f"The separation process died ({ending}).")

    def _lose(self, child: _Child, reason: str) -> None:
        ending = child.end()
        logger.warning("The separation process {} is gone: {} ({})", child.pid, reason, ending)
        self._child, self._busy, self._lost_by = None, False, reason
