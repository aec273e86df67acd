"""What this process depends on: Kafka, S3, the handoff and disk space; which fails it, and why.

A call that hangs raises nothing until its time limit. It is therefore named while it hangs: in the
log, in /readyz, in a metric, and in `data/run/<service>-<pid>.waiting`, which services.py reads.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kafka.errors import KafkaError
from loguru import logger

from common.deadline import DeadlineExpired
from common.errors import Cancelled, Unreachable
from common.outages import Outage

DependencyName = Literal["kafka", "s3", "handoff", "disk"]
Clock = Callable[[], float]

#: A call without any sign of life for this long is named.
SILENT_SECONDS = 10.0
#: The stop files of `common.process` lie here, too.
RUN_DIR = Path("data/run")
#: A failed call counts for this long: whoever needs the dependency tries again sooner.
FAILURE_SECONDS = 60.0


class Call:
    """A call of a dependency that is under way."""

    def __init__(self, doing: str, clock: Clock) -> None:
        self.doing = doing
        self._clock = clock
        self._bytes = 0
        self._most_bytes = 0
        self.last_sign = clock()

    def progressed(self, size_bytes: int) -> None:
        """Note bytes that went through: a sign of life, unless they only repeat what was lost.

        Negative *size_bytes* were lost, and are sent again.
        """
        self._bytes += size_bytes
        if self._bytes > self._most_bytes:
            self._most_bytes = self._bytes
            self.last_sign = self._clock()


class Dependency:
    """One thing that the process depends on; any thread may use it.

    Args:
        name: its name in the metric.
        what: its name for people, at the beginning of a sentence.
        failures: the errors that mean that it is unavailable.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        name: DependencyName,
        what: str,
        *,
        failures: tuple[type[Exception], ...] = (Outage,),
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.what = what
        self._failures = failures
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._background: Call | None = None
        self._failure = ""
        self._failed_at: float | None = None
        #: Since when nothing was answered; None if the last call was.
        self._since: float | None = None
        self._log_after_seconds = SILENT_SECONDS

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._calls)

    @contextmanager
    def call(self, doing: str) -> Iterator[Call]:
        """Watch the block as one call; *doing* says what it does, such as `PUT song/vocals.wav`.

        An error that is not among `failures` is an answer, except our own decision not to wait any
        longer.
        """
        call = Call(doing, self._clock)
        with self._lock:
            self._calls.append(call)
        try:
            yield call
        except (DeadlineExpired, Cancelled):
            self._end(call, "it did not answer in time" if self._is_silent(call) else None)
            raise
        except BaseException as error:
            # A missing file or object is an answer of a service that works.
            failed = isinstance(error, self._failures) and not isinstance(error, FileNotFoundError)
            self._end(call, str(error) if failed else None)
            raise
        self._end(call, None)

    def note(self, silent_seconds: float, failure: str | None) -> None:
        """Note what is known of requests that another thread sends on its own.

        Args:
            silent_seconds: how long the oldest of them waits for its answer.
            failure: why the last one failed, if it did.
        """
        with self._lock:
            if failure is not None:
                self._failed_at, self._failure = self._clock(), failure
                self._since = self._failed_at if self._since is None else self._since
            if silent_seconds >= SILENT_SECONDS and self._background is None:
                self._background = Call("a heartbeat or a fetch", self._clock)
                self._background.last_sign = self._clock() - silent_seconds
                self._calls.append(self._background)
            elif silent_seconds < SILENT_SECONDS and self._background is not None:
                self._calls.remove(self._background)
                self._background = None
            if self._background is None and failure is None and not self._calls:
                self._answered()

    def _end(self, call: Call, failure: str | None) -> None:
        with self._lock:
            self._calls.remove(call)
            if failure is None:
                self._answered()
            else:
                self._failed_at, self._failure = self._clock(), failure
                self._since = call.last_sign if self._since is None else self._since

    def _is_silent(self, call: Call) -> bool:
        return self._clock() - call.last_sign >= SILENT_SECONDS

    def _answered(self) -> None:
        if self._since is not None and self._log_after_seconds > SILENT_SECONDS:
            logger.info("{} answers again after {:.0f} s", self.what, self._clock() - self._since)
        self._failed_at, self._since = None, None
        self._log_after_seconds = SILENT_SECONDS

    @property
    def unavailable_reason(self) -> str | None:
        """Why it cannot be used now; None if nothing is known against it."""
        with self._lock:
            now = self._clock()
            silent = self._silent()
            if silent is not None:
                since, doing = silent
                return f"{self.what} has not answered for {now - since:.0f} s ({doing})"
            if self._failed_at is not None and now - self._failed_at < FAILURE_SECONDS:
                return f"{self.what} is unavailable: {self._failure}"
            return None

    @property
    def unavailable_seconds(self) -> float:
        """For how long it has been unavailable."""
        with self._lock:
            silent = self._silent()
            begins = [silent[0] if silent else None, self._since, self._failed_at]
            now = self._clock()
            return max((now - begin for begin in begins if begin is not None), default=0.0)

    def watch(self) -> None:
        """Log a call that hangs: after 10 s, then each time it has lasted four times longer."""
        with self._lock:
            silent = self._silent()
            if silent is None:
                return
            self._since, doing = silent
            seconds = self._clock() - self._since
            if seconds >= self._log_after_seconds:
                self._log_after_seconds *= 4
                logger.warning("{} has not answered for {:.0f} s ({})", self.what, seconds, doing)

    def _silent(self) -> tuple[float, str] | None:
        """Return since when the longest silent call waits, and what it does, under the lock."""
        call = min(self._calls, key=lambda one: one.last_sign, default=None)
        if call is None or not self._is_silent(call):
            return None
        since = call.last_sign if self._since is None else self._since
        return min(since, call.last_sign), call.doing


def kafka_dependency() -> Dependency:
    """Return Kafka as a dependency."""
    return Dependency("kafka", "Kafka", failures=(KafkaError, Unreachable))


def s3_dependency() -> Dependency:
    """Return S3 as a dependency."""
    return Dependency("s3", "S3")


def disk_dependency() -> Dependency:
    """Return disk space as a dependency; whoever waits for it notes it."""
    return Dependency("disk", "Disk space")


@dataclass(frozen=True)
class Waiting:
    """What a process waits for, why, and since when in seconds since the epoch."""

    what: str
    reason: str
    since: float


class Dependencies(threading.Thread):
    """Looks after the dependencies of this process, on a thread of its own.

    Args:
        service: the name of the process's service.
        dependencies: what the process uses.
    """

    def __init__(self, service: str, dependencies: Sequence[Dependency]) -> None:
        super().__init__(name="dependencies", daemon=True)
        self._dependencies = tuple(dependencies)
        self._file = _waiting_file(RUN_DIR, service, os.getpid())
        self._told: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why the process cannot use one of them; None if it can use all, as far as is known."""
        return self._unavailable()[1]

    def _unavailable(self) -> tuple[Dependency | None, str | None]:
        reasons = ((one, one.unavailable_reason) for one in self._dependencies)
        return next(((one, reason) for one, reason in reasons if reason), (None, None))

    def run(self) -> None:
        """Look twice a second until the process ends."""
        while True:
            self.look()
            time.sleep(0.5)

    def look(self) -> None:
        """Log what hangs, and tell services.py."""
        for one in self._dependencies:
            one.watch()
        lost, reason = self._unavailable()
        if reason == self._told:
            return
        self._told = reason
        with suppress(OSError):  # the disk may be what hangs, or be full
            if lost is None or reason is None:
                self._file.unlink(missing_ok=True)
                return
            waiting = Waiting(lost.what, reason, time.time() - lost.unavailable_seconds)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Replaced as a whole: a reader never finds half of it.
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(asdict(waiting)), encoding="utf-8")
            new.replace(self._file)


def waiting_for(run_dir: Path, service: str, pid: int, since: float) -> Waiting | None:
    """Return what the process *pid*, which began at *since*, waits for; None if for nothing."""
    file = _waiting_file(run_dir, service, pid)
    with suppress(OSError, ValueError, TypeError):
        # A file of a killed process is older than the next one with its id.
        if file.stat().st_mtime >= since:
            return Waiting(**json.loads(file.read_text(encoding="utf-8")))
    return None


def _waiting_file(run_dir: Path, service: str, pid: int) -> Path:
    return run_dir / f"{service}-{pid}.waiting"
