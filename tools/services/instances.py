"""The instances that the supervisor runs: start, drain, kill and restart their processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.environment.venv import ROOT
from tools.services import group_removal, logs
from tools.services.fleet import instance_processes
from tools.services.state_files import Instance, ServiceName

#: An instance that ran this long has started well: its next restart is quick again.
STEADY_SECONDS = 60.0


class Instances:
    """The instances in *folder*, including those of an earlier supervisor.

    Args:
        folder: their working directory.
        environment: their environment.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._clock = clock
        self._processes = instance_processes(folder)
        self._instances = {
            name: self._running(Instance(name=name, state="running"))
            for name in self._processes.names
        }

    @property
    def all(self) -> tuple[Instance, ...]:
        """Return all instances, draining ones too."""
        return tuple(self._instances.values())

    def retry(self) -> None:
        """Restart those that failed or ended: their cause may be fixed."""
        for one in self.all:
            if one.state in {"failed", "ended", "restarting"}:
                self._change(one, state="restarting", restart_at=self._clock(), failures=0)

    def signal_all(self) -> None:
        """Ask all running processes to stop; the second request stops them at once."""
        for one in self.all:
            if one.pid is not None:
                self._processes.ask(one.name)

    def collect_exits(self, kill_at: float) -> dict[str, int]:
        """Handle the processes that exited; return the exit codes of the drained ones.

        Processes that still run at *kill_at* are killed.
        """
        drained = {}
        for one in self.all:
            process = self._processes.get(one.name)
            if process is None:
                continue
            code = process.exit_code
            if code is not None:
                self._processes.forget(one.name)
            elif self._clock() > kill_at:
                self._processes.kill(one.name)
                code = -9
            else:
                logs.shorten(self._processes.log_file(one.name))
                continue
            if one.state == "draining":
                del self._instances[one.name]
                drained[one.name] = code
            else:
                self._handle_exit(one, code)
        return drained

    def _handle_exit(self, one: Instance, code: int) -> None:
        was_steady = one.began is not None and self._clock() - one.began > STEADY_SECONDS
        facts = {
            "pid": None,
            "began": None,
            "exit_code": code,
            "failures": 0 if was_steady else one.failures,
            "reason": logs.last_error(self._processes.log_file(one.name)),
        }
        exited = one.model_copy(update=facts)
        if code == 0:
            self._change(exited, state="ended")
        elif code == 2:  # bad settings
            self._change(exited, state="failed")
        else:
            if one.pid is not None:
                environ = _environ(self._environment, one)
                group_removal.remove_in_background(one.service, one.pid, self._folder, environ)
            self._instances[one.name] = exited.restarting(self._clock())

    def scale(self, service: ServiceName, count: int) -> None:
        """Drain or start instances of *service* until *count* remain."""
        kept = [one for one in self.all if one.service == service and one.state != "draining"]
        # Drain those without a process first, then the highest numbers.
        kept.sort(key=lambda one: (one.pid is None, one.number))
        for surplus in kept[count:]:
            if surplus.pid is None:
                del self._instances[surplus.name]
            else:
                self._processes.ask(surplus.name)
                self._change(surplus, state="draining")
        for _ in range(count - len(kept)):
            names = (f"{service}-{number}" for number in range(1, 10_000))
            name = next(name for name in names if name not in self._instances)
            self._start(Instance(name=name, state="running"))

    def restart_due(self) -> None:
        """Start the instances whose restart is due."""
        for one in self.all:
            if one.state == "restarting" and self._clock() >= (one.restart_at or 0):
                self._start(one.model_copy(update={"restarts": one.restarts + 1}))

    def _start(self, one: Instance) -> None:
        command = [sys.executable, str(ROOT / f"{one.service}.py")]
        environ = _environ(self._environment, one)
        try:
            self._processes.start(one.name, command, environ, drains=True, keep_log=True)
        except OSError as error:  # out of memory or disk space
            failed = one.model_copy(update={"reason": f"Cannot start it: {error}"})
            self._instances[one.name] = failed.restarting(self._clock())
            return
        self._instances[one.name] = self._running(one)

    def _running(self, one: Instance) -> Instance:
        process = self._processes.get(one.name)
        assert process is not None
        facts = {"pid": process.process.pid, "began": process.began, "restart_at": None}
        return one.model_copy(update={"state": "running", **facts})

    def _change(self, one: Instance, **facts: object) -> None:
        self._instances[one.name] = one.model_copy(update=facts)


def _environ(environment: Mapping[str, str], one: Instance) -> dict[str, str]:
    environ = dict(environment)
    # With a shared id, each instance would throw the previous one out of the group.
    if environ.get("KAFKA_GROUP_INSTANCE_ID"):
        environ["KAFKA_GROUP_INSTANCE_ID"] += f"-{one.name}"
    return environ
