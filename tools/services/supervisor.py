"""Keeps as many instances of each service running as the board wants; outlives the terminal it was
started from.

An instance that ends by itself is started again, later and later while it keeps ending; one that
was drained, or whose settings are bad, is not. When the supervisor itself is killed, its instances
go on; the next one takes them up.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from tools.background.processes import Services
from tools.environment.venv import ROOT
from tools.services import departure
from tools.services.board import SERVICES, Board, Instance, Seen, ServiceName, Wanted

LOOK_SECONDS = 0.2
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
#: Who ran this long has started well; its next end is the first again.
STEADY_SECONDS = 60.0
#: Who is to stop at once lets go of its task within 30 s, or is killed.
NOW_SECONDS = 40.0
MAX_LOG_BYTES = 20 * 1024 * 1024
REASON_BYTES = 4000
MAX_REASON_CHARACTERS = 500
DRAINED, BAD_SETTINGS, KILLED = 0, 2, -9
#: An error's line as loguru writes it before and after the log is configured, up to the message.
ERROR_LINE = re.compile(r"ERROR +(?:\| \S+ - |\d+ \S+ )")


class Supervisor:
    """Looks after the instances in *folder*.

    Args:
        folder: where they run: their .env, data and logs lie there.
        environment: what they get.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._board = Board(folder)
        self._services = instances(folder)
        self._environment = dict(environment)
        self._clock = clock
        self._instances = {name: self._found(name) for name in self._services.names}
        self._gone: dict[str, int] = {}
        self._wanted = Wanted(request=0)
        self._shown: Seen | None = None
        self._signals = 0
        self._kill_at = float("inf")

    def listen(self) -> None:
        """Take SIGTERM and its like for a wish to drain everything and end; a second one, at once."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._count)

    def run(self) -> None:
        """Look after them until nothing is wanted any more, and nothing runs."""
        while True:
            self._take_note()
            self._bury()
            self._bring_about()
            self._show()
            if self._wanted.stopping and not self._instances:
                return
            time.sleep(LOOK_SECONDS)

    # -- what is wanted ------------------------------------------------------------------------------------------

    def _take_note(self) -> None:
        wanted = self._board.wanted or self._wanted
        if self._signals:
            wanted = wanted.model_copy(
                update={"stopping": True, "now": wanted.now or self._signals > 1}
            )
        if wanted == self._wanted:
            return
        if wanted.request != self._wanted.request:
            self._gone = {}
            self._try_again()
        if wanted.now and not self._wanted.now:
            self._hurry()
        self._wanted = wanted

    def _try_again(self) -> None:
        """Give those that failed another chance: somebody may have mended what was wrong."""
        for one in list(self._instances.values()):
            if one.state in {"failed", "ended", "restarting"}:
                self._change(one, state="restarting", restart_at=self._clock(), failures=0)

    def _hurry(self) -> None:
        for one in self._instances.values():
            if one.pid is not None:
                self._services.ask(one.name)
        self._kill_at = self._clock() + NOW_SECONDS

    # -- what is ---------------------------------------------------------------------------------------------------

    def _bury(self) -> None:
        """Take note of those that have ended."""
        for one in list(self._instances.values()):
            service = self._services.get(one.name)
            if service is None:
                continue
            code = service.exit_code
            if code is not None:
                self._services.forget(one.name)
                self._ended(one, code)
            elif self._clock() > self._kill_at:
                self._services.kill(one.name)
                self._ended(one, KILLED)
            else:
                self._shorten(self._services.log_file(one.name))

    def _ended(self, one: Instance, code: int) -> None:
        if one.state == "draining":
            del self._instances[one.name]
            self._gone[one.name] = code
            return
        steady = one.began is not None and self._clock() - one.began > STEADY_SECONDS
        failures = 0 if steady else one.failures
        reason = self._reason(one.name)
        gone = one.model_copy(
            update={
                "pid": None,
                "began": None,
                "exit_code": code,
                "failures": failures,
                "reason": reason,
            }
        )
        if code in {DRAINED, BAD_SETTINGS}:
            self._change(gone, state="ended" if code == DRAINED else "failed")
            return
        if one.pid is not None:
            departure.announce(one.service, one.pid, self._folder, self._environ(one))
        self._put_off(gone)

    def _put_off(self, one: Instance) -> None:
        delay_seconds = min(FIRST_DELAY_SECONDS * 2**one.failures, LONGEST_DELAY_SECONDS)
        self._change(
            one,
            state="restarting",
            failures=one.failures + 1,
            restart_at=self._clock() + delay_seconds,
        )

    def _reason(self, name: str) -> str:
        """Return the last error that an instance logged, or else its last line."""
        end = (
            self._services.log_file(name)
            .read_bytes()[-REASON_BYTES:]
            .decode("utf-8", "replace")
            .strip()
        )
        errors = ERROR_LINE.split(end)
        reason = errors[-1] if len(errors) > 1 else end.rpartition("\n")[2]
        return reason.replace("\\n", "\n")[:MAX_REASON_CHARACTERS]

    # -- from the one to the other -----------------------------------------------------------------------------------

    def _bring_about(self) -> None:
        for service in SERVICES:
            # The last to go are those that run, from the first.
            kept = sorted(self._of(service), key=lambda one: (one.pid is None, one.number))
            for surplus in kept[self._wanted.count(service) :]:
                self._drain(surplus)
            for _ in range(self._wanted.count(service) - len(kept)):
                self._start(Instance(name=self._free_name(service), state="running"))
        for one in list(self._instances.values()):
            if one.state == "restarting" and self._clock() >= (one.restart_at or 0):
                self._start(one.model_copy(update={"restarts": one.restarts + 1}))

    def _of(self, service: ServiceName) -> list[Instance]:
        return [
            one
            for one in self._instances.values()
            if one.service == service and one.state != "draining"
        ]

    def _free_name(self, service: ServiceName) -> str:
        return next(
            name
            for number in range(1, 10_000)
            if (name := f"{service}-{number}") not in self._instances
        )

    def _drain(self, one: Instance) -> None:
        if one.pid is None:
            del self._instances[one.name]
            return
        self._services.ask(one.name)
        self._change(one, state="draining")

    def _start(self, one: Instance) -> None:
        command = [sys.executable, str(ROOT / f"{one.service}.py")]
        try:
            self._services.start(one.name, command, self._environ(one), drains=True, keep_log=True)
        except OSError as error:  # no memory, no room
            self._put_off(one.model_copy(update={"reason": f"It could not be started: {error}"}))
            return
        self._instances[one.name] = self._found(one.name, one)

    def _environ(self, one: Instance) -> dict[str, str]:
        environ = dict(self._environment)
        # One id for all would make each of them throw the one before out of the group.
        if environ.get("KAFKA_GROUP_INSTANCE_ID"):
            environ["KAFKA_GROUP_INSTANCE_ID"] += f"-{one.name}"
        return environ

    def _found(self, name: str, before: Instance | None = None) -> Instance:
        service = self._services.get(name)
        assert service is not None
        facts = {
            "state": "running",
            "pid": service.process.pid,
            "began": service.began,
            "restart_at": None,
        }
        return (before or Instance(name=name, state="running")).model_copy(update=facts)

    def _change(self, one: Instance, **facts: object) -> None:
        self._instances[one.name] = one.model_copy(update=facts)

    def _show(self) -> None:
        seen = Seen(
            request=self._wanted.request, instances=tuple(self._instances.values()), gone=self._gone
        )
        if seen != self._shown:
            self._board.show(seen)
            self._shown = seen.model_copy(update={"gone": dict(self._gone)})

    def _shorten(self, log: Path) -> None:
        # Its lines are in logs/processor.log and logs/uploader.log as well, which are rotated.
        # Windows has no files that are appended to wherever their end is.
        if os.name != "nt" and log.stat().st_size > MAX_LOG_BYTES:
            os.truncate(log, 0)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1


def instances(folder: Path) -> Services:
    """Return the processes of the instances in *folder*, whoever started them."""
    return Services(folder, Board(folder).folder / "instances.json")


def supervisor(folder: Path) -> Services:
    """Return the process of the supervisor in *folder*, if there is one."""
    return Services(folder, Board(folder).folder / "supervisor.json")
