"""The commands of scripts/services.py: start, scale, stop, status and logs."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from kafka.errors import KafkaError
from rich.console import Console
from rich.live import Live

import config
from common.errors import Unreachable
from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT
from tools.services import logs as log_files
from tools.services.ends import how
from tools.services.environment import metrics_port
from tools.services.fleet import Fleet
from tools.services.recent import Recent, read_recent
from tools.services.state_files import SERVICES
from tools.services.status import Status, show
from tools.services.surroundings import Look
from tools.services.verdict import Facts
from tools.services.view import KafkaView, instance_views, kafka_view
from tools.terminal import quiet_exit
from tools.terminal.status_line import StatusLine
from tools.terminal.tables import say
from tools.topics.command import DONE, FAILED, UNREACHABLE, WRONG_USAGE
from tools.topics.reader import Topics, open_topics

LOOK_SECONDS = 0.5
WATCH_SECONDS = 2.0
MAX_PORT = 65_535


class AskKafka:
    """Asks Kafka for snapshots; `problem` says why it cannot, where it cannot."""

    def __init__(
        self, topics: Topics | None, settings: config.Settings, problem: str | None
    ) -> None:
        self._topics = topics
        self._settings = settings
        self.problem = problem

    def __call__(self) -> KafkaView | None:
        """Return both groups as they are now; None if Kafka does not answer."""
        return None if self._topics is None else kafka_view(self._topics, self._settings)

    def recent(self) -> Recent:
        """Return what happened in the last hour; nothing if Kafka does not answer."""
        with suppress(KafkaError, Unreachable):
            if self._topics is not None:
                return read_recent(self._topics, self._settings)
        return Recent()


def run(options: argparse.Namespace) -> int:
    """Run the command that *options* names; return the exit code."""
    folder = options.folder.resolve()
    if folder != ROOT and (folder / ".env").exists():
        os.environ.setdefault("UVR_ENV_FILE", str(folder / ".env"))
    # Copied before .env is read: each instance reads .env itself when it starts.
    environ = dict(os.environ)
    os.chdir(folder)
    settings = config.load()
    if settings.kafka_group_instance_id:
        # The supervisor makes a different id for each instance, which a shared .env cannot.
        environ["KAFKA_GROUP_INSTANCE_ID"] = settings.kafka_group_instance_id
    try:
        return _ACTIONS[options.action](options, Fleet(folder, environ), settings)
    except LocalSetupFailed as error:
        say(str(error))
        return FAILED


def start(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Start the missing instances and wait until they have joined."""
    counts = _counts(options)
    if not fleet.desired.processor and not fleet.desired.uploader:
        # Nothing is wanted yet; otherwise the last wanted numbers stay, also after a stop.
        counts = {"processor": 1, "uploader": 1, **counts}
    if not _ports_fit(fleet, settings, counts):
        return WRONG_USAGE
    fleet.request(**counts, stopping=False, now=False)
    return _settle(options, fleet, settings)


def scale(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Start or drain instances and wait until they have joined or exited."""
    if not _counts(options):
        say("Pass --processors N, --uploaders N, or both.")
        return WRONG_USAGE
    if not fleet.exists:
        say("Nothing is running. Start it: python scripts/services.py start")
        return FAILED
    if not _ports_fit(fleet, settings, _counts(options)):
        return WRONG_USAGE
    fleet.request(**_counts(options), stopping=False, now=False)
    return _settle(options, fleet, settings)


def stop(options: argparse.Namespace, fleet: Fleet, _settings: config.Settings) -> int:
    """Drain all instances and wait until they have exited."""
    if not fleet.exists:
        print("Nothing is running.")
        return DONE
    fleet.request(stopping=True, now=False)
    deadline = time.monotonic() + options.timeout
    with _waiting("Draining goes on; python scripts/services.py status shows it.") as line:
        while fleet.supervised:
            line(f"draining {', '.join(one.name for one in fleet.observed.instances)}")
            if time.monotonic() > deadline:
                deadline = float("inf")
                fleet.stop_now()
            time.sleep(LOOK_SECONDS)
    _say_gone(fleet)
    return DONE


def status(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Show the instances, their tasks and the lag; with `--watch`, until Ctrl-C."""
    with _kafka(settings) as ask:
        console = Console(highlight=False, markup=False, emoji=False)
        if options.watch and options.format != "json" and console.is_terminal:
            with Live(console=console, auto_refresh=False, screen=True) as live:
                while True:
                    live.update(_status(fleet, ask, settings).table, refresh=True)
                    time.sleep(WATCH_SECONDS)
        while options.watch:
            _show(options, fleet, ask, settings)
            time.sleep(WATCH_SECONDS)
        snapshot = _status(fleet, ask, settings)
        try:
            show(snapshot, as_json=options.format == "json")
        except BrokenPipeError:  # `status | head -1` wants no more, but the exit code
            quiet_exit.discard_output()
        return _exit_code(snapshot, well=snapshot.healthy)


def logs(options: argparse.Namespace, fleet: Fleet, _settings: config.Settings) -> int:
    """Show the output of instances."""
    names = options.names or ["processor", "uploader"]
    files = log_files.output_files(fleet.folder)
    chosen = {
        log: file for log, file in files.items() if log in names or log.rpartition("-")[0] in names
    }
    if not chosen:
        if files:
            say(f"There is no log of {', '.join(names)}, but of {', '.join(files)}.")
        else:
            say("There are no logs yet; start the services first.")
        return FAILED
    log_files.tail(chosen, options.lines, follow=options.follow)
    return DONE


def _counts(options: argparse.Namespace) -> dict[str, int]:
    counts = {"processor": options.processors, "uploader": options.uploaders}
    return {name: count for name, count in counts.items() if count is not None}


def _ports_fit(fleet: Fleet, settings: config.Settings, counts: Mapping[str, int]) -> bool:
    """Tell whether each instance's metrics port exists; if not, say so."""
    if not settings.metrics_port:
        return True
    wanted = fleet.desired.model_copy(update={**counts, "stopping": False})
    highest = max(
        metrics_port(settings.metrics_port, service, wanted.count(service)) for service in SERVICES
    )
    if highest > MAX_PORT:
        say(
            f"Bad settings:\nMETRICS_PORT: {settings.metrics_port}: must leave room for the ports "
            f"of all instances, here up to {highest}; the highest port is {MAX_PORT}"
        )
    return highest <= MAX_PORT


def _settle(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Wait until each instance has joined or exited, and drained ones are gone; show the status."""
    # A minute to join, after the time that a process waits for Kafka and S3.
    deadline = time.monotonic() + settings.startup_timeout_seconds + 60
    otherwise = "It goes on in the background; python scripts/services.py status shows it."
    with _waiting(otherwise) as line, _kafka(settings) as ask:
        while True:
            fleet.check()
            kafka = ask()
            views = instance_views(fleet.observed.instances, fleet.services, kafka)
            draining = [one.instance.name for one in views if one.state == "draining"]
            starting = [one.instance.name for one in views if one.state == "starting"]
            if not draining and (not starting or kafka is None or time.monotonic() > deadline):
                break
            line(f"waiting for {', '.join([*starting, *draining])}")
            time.sleep(LOOK_SECONDS)
        line.finish()
        _say_gone(fleet)
        shown = _show(options, fleet, ask, settings)
        # Faults of the pipeline, such as a service that runs nowhere, are not this command's.
        return _exit_code(shown, well=shown.settled)


def _show(
    options: argparse.Namespace, fleet: Fleet, ask: AskKafka, settings: config.Settings
) -> Status:
    snapshot = _status(fleet, ask, settings)
    show(snapshot, as_json=options.format == "json")
    return snapshot


def _exit_code(shown: Status, *, well: bool) -> int:
    if shown.facts.kafka_problem is not None:
        return UNREACHABLE
    return DONE if well else FAILED


def _status(fleet: Fleet, ask: AskKafka, settings: config.Settings) -> Status:
    look = Look(settings)
    kafka = ask()
    services, supervised = fleet.services, fleet.supervised
    instances = [
        one
        for one in fleet.observed.instances
        # Without a supervisor the observed state is old: only running processes count.
        if supervised or one.name in services.names
    ]
    views = instance_views(instances, services, kafka)
    problem = None if kafka else ask.problem or f"Kafka at {_servers(settings)} does not answer."
    return Status(
        Facts(
            instances=views,
            ends=fleet.ends,
            supervised=supervised,
            groups=kafka.groups if kafka else (),
            kafka_problem=problem,
            recent=ask.recent() if kafka else Recent(),
            surroundings=look.result(),
        )
    )


def _servers(settings: config.Settings) -> str:
    return ", ".join(settings.kafka.bootstrap_servers)


def _say_gone(fleet: Fleet) -> None:
    for name, code in sorted(fleet.observed.gone.items()):
        say(f"{name} drained." if code == DONE else f"{name} {how(code)}.")


@contextmanager
def _kafka(settings: config.Settings) -> Iterator[AskKafka]:
    """Yield what asks Kafka, once it has answered or a few seconds have passed."""
    with ExitStack() as stack:
        try:
            # Short: the status is wanted now, whether Kafka answers or not.
            reader = stack.enter_context(open_topics(settings.kafka, 5))
        except Unreachable as error:
            yield AskKafka(None, settings, " ".join(str(error).split()))
            return
        yield AskKafka(reader, settings, None)


@contextmanager
def _waiting(otherwise: str) -> Iterator[StatusLine]:
    """Yield a status line; Ctrl-C only ends the waiting, and prints *otherwise*."""
    line = StatusLine()
    try:
        yield line
    except KeyboardInterrupt:
        line.finish(otherwise)
        raise
    line.finish()


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Fleet, config.Settings], int]] = {
    "start": start,
    "scale": scale,
    "stop": stop,
    "status": status,
    "logs": logs,
}
