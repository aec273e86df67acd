"""The instances that the supervisor runs: start, drain, kill and restart their processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tools.environment.venv import ROOT
from tools.services import group_removal, logs
from tools.services.ends import End, EndsFile
from tools.services.environment import environment_of
from tools.services.fleet import instance_processes
from tools.services.state_files import Instance, ServiceName, StateFiles

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
        self._state_folder = StateFiles(folder).folder
        self._ends = EndsFile(self._state_folder / "ends.json")
        #: Where the output of each process begins in its log.
        self._output_begins: dict[str, int] = {}
        self._instances: dict[str, Instance] = {}
        self._take_over({one.name: one for one in StateFiles(folder).observed.instances})

    def _take_over(self, known: Mapping[str, Instance]) -> None:
        """Continue with the instances of an earlier supervisor; tell of those that ended since."""
        for name in self._processes.names:
            one = known.get(name, Instance(name=name, state="running"))
            state = "draining" if one.state == "draining" else "running"
            self._instances[name] = self._running(one).model_copy(update={"state": state})
        ended = [one for one in known.values() if one.pid and one.name not in self._instances]
        if ended or self._instances:
            self._note_end("supervisor", None, None, noticed=True)
        for one in ended:
            self._note_end(one.name, one.pid, self._written_code(one.name), noticed=True)

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

    def collect_exits(self, kill_at: float) -> dict[str, int | None]:
        """Handle the processes that exited; return the exit codes of the drained ones.

        Processes that still run at *kill_at* are killed.
        """
        drained: dict[str, int | None] = {}
        for one in self.all:
            process = self._processes.get(one.name)
            if process is None:
                continue
            if not process.running:
                code = process.exit_code
                code = self._written_code(one.name) if code is None else code
                self._processes.forget(one.name)
            elif self._clock() > kill_at:
                self._processes.kill(one.name)
                code = -9
            else:
                logs.shorten(self._processes.log_file(one.name))
                continue
            self._note_end(one.name, one.pid, code, asked=one.state == "draining")
            if one.state == "draining":
                del self._instances[one.name]
                drained[one.name] = code
            else:
                self._handle_exit(one, code)
        return drained

    def _handle_exit(self, one: Instance, code: int | None) -> None:
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
                environ = environment_of(one, self._environment, self._folder)
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
        main, code_file = (
            ROOT / "tools" / "services" / "instance_main.py",
            self._code_file(one.name),
        )
        command = [sys.executable, str(main), one.service, str(code_file)]
        environ = environment_of(one, self._environment, self._folder)
        self._output_begins[one.name] = 0
        try:
            with suppress(FileNotFoundError):
                self._output_begins[one.name] = self._processes.log_file(one.name).stat().st_size
            code_file.unlink(missing_ok=True)
            self._processes.start(one.name, command, environ, drains=True, keep_log=True)
        except OSError as error:  # out of memory or disk space
            failed = one.model_copy(
                update={"reason": f"Cannot start it: {error}", "exit_code": None}
            )
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

    def _note_end(
        self,
        name: str,
        pid: int | None,
        exit_code: int | None,
        *,
        asked: bool = False,
        noticed: bool = False,
    ) -> None:
        lines: tuple[str, ...] = ()
        with suppress(OSError):
            log = self._processes.log_file(name)
            lines = logs.last_lines(log, self._output_begins.get(name, 0))
        end = End(
            name=name,
            pid=pid,
            at=self._clock(),
            exit_code=exit_code,
            asked=asked,
            noticed=noticed,
            last_lines=lines,
        )
        with suppress(OSError):  # a full disk must not stop the supervisor
            self._ends.add(end)

    def _code_file(self, name: str) -> Path:
        return self._state_folder / f"{name}.exit"

    def _written_code(self, name: str) -> int | None:
        """Return the exit code that the last process of an instance wrote itself."""
        with suppress(OSError, ValueError):
            return int(self._code_file(name).read_text(encoding="ascii"))
        return None
