"""python scripts/services.py start|stop|status|scale|logs [--processors N] [--uploaders N]

Processors and uploaders in the background of this machine, with settings from the environment and
from .env. A small supervisor outlives the terminal: it starts again what ends by itself, later and
later while that keeps happening; what was drained, and what has bad settings, stays as it is.
Instances are drained: they finish the task in hand.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from rich.console import Console
from rich.live import Live

import config
from common.errors import Unreachable
from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT
from tools.services import screen
from tools.services.fleet import Fleet
from tools.services.screen import Picture
from tools.services.view import Kafka, ask, look
from tools.terminal.status_line import StatusLine
from tools.terminal.tables import say
from tools.topics import command
from tools.topics.command import DONE, FAILED, UNREACHABLE, WRONG_USAGE
from tools.topics.reader import open_topics

#: A status is wanted now, whether Kafka answers or not.
KAFKA_SECONDS = 5.0
LOOK_SECONDS = 0.5
WATCH_SECONDS = 2.0
#: What a process may need to join, on top of waiting for Kafka and S3.
JOIN_SECONDS = 60.0

#: Asks Kafka how things are; None when it does not answer.
See = Callable[[], Kafka | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    return command.run(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    environ = dict(os.environ)  # before .env is read: who starts an instance later reads it anew
    folder = options.folder.resolve()
    os.chdir(folder)
    settings = config.load()
    if settings.kafka_group_instance_id:
        # Each instance needs one of its own, which an .env that they all read cannot give them.
        environ["KAFKA_GROUP_INSTANCE_ID"] = settings.kafka_group_instance_id
    try:
        return int(options.action(options, Fleet(folder, environ), settings))
    except LocalSetupFailed as error:
        say(str(error))
        return FAILED


def start(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Start what is missing, and wait until it has joined."""
    fresh = (
        {} if fleet.supervised and not fleet.wanted.stopping else {"processor": 1, "uploader": 1}
    )
    fleet.want(**{**fresh, **_counts(options)}, stopping=False, now=False)
    return _settle(options, fleet, settings)


def scale(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Start or drain the difference, and wait until it has joined or is gone."""
    if not _counts(options):
        say("Say how many: --processors N, --uploaders N, or both.")
        return WRONG_USAGE
    if not fleet.exists:
        say("Nothing runs here: python scripts/services.py start")
        return FAILED
    fleet.want(**_counts(options), stopping=False, now=False)
    return _settle(options, fleet, settings)


def stop(options: argparse.Namespace, fleet: Fleet, _settings: config.Settings) -> int:
    """Drain everything, and wait until it is gone."""
    if not fleet.exists:
        print("Nothing runs here.")
        return DONE
    fleet.want(stopping=True, now=False)
    deadline = time.monotonic() + options.timeout
    with _patiently(
        "The instances go on draining; python scripts/services.py status shows them."
    ) as line:
        while fleet.supervised:
            line(f"draining {', '.join(one.name for one in fleet.seen.instances)}")
            if time.monotonic() > deadline:
                deadline = float("inf")
                fleet.hurry()
            time.sleep(LOOK_SECONDS)
    _say_gone(fleet)
    return DONE


def status(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Show what runs, what it does, and what waits."""
    with _kafka(settings) as see:
        if options.watch:
            _watch(options, fleet, see)
        return _shown(options, fleet, see())


def logs(options: argparse.Namespace, fleet: Fleet, _settings: config.Settings) -> int:
    """Show what instances wrote."""
    names = options.names or ["processor", "uploader"]
    meant = {
        log: file
        for log, file in fleet.logs.items()
        if log in names or log.rpartition("-")[0] in names
    }
    if not meant:
        say(f"There is no log of {', '.join(names)}; there are: {', '.join(fleet.logs) or 'none'}.")
        return FAILED
    screen.tail(meant, options.lines, follow=options.follow)
    return DONE


def _counts(options: argparse.Namespace) -> dict[str, int]:
    counts = {"processor": options.processors, "uploader": options.uploaders}
    return {name: count for name, count in counts.items() if count is not None}


def _settle(options: argparse.Namespace, fleet: Fleet, settings: config.Settings) -> int:
    """Wait until each instance has joined its group, or ended, and those that drain are gone; show
    how it came out.
    """
    deadline = time.monotonic() + settings.startup_timeout_seconds + JOIN_SECONDS
    with (
        _patiently("It goes on; python scripts/services.py status shows how far.") as line,
        _kafka(settings) as see,
    ):
        while True:
            fleet.check()
            kafka = see()
            sights = look(fleet.seen.instances, fleet.services, kafka)
            draining = [one.instance.name for one in sights if one.state == "draining"]
            starting = [one.instance.name for one in sights if one.state == "starting"]
            if not draining and (not starting or kafka is None or time.monotonic() > deadline):
                break
            line(f"waiting for {', '.join([*starting, *draining])}")
            time.sleep(LOOK_SECONDS)
    _say_gone(fleet)
    return _shown(options, fleet, kafka)


def _shown(options: argparse.Namespace, fleet: Fleet, kafka: Kafka | None) -> int:
    picture = _picture(fleet, kafka)
    screen.show(picture, as_json=options.format == "json")
    if not picture.well:
        return FAILED
    return UNREACHABLE if kafka is None else DONE


def _picture(fleet: Fleet, kafka: Kafka | None) -> Picture:
    services = fleet.services
    supervised = fleet.supervised
    # Of a supervisor that ended only what still runs is true.
    instances = [one for one in fleet.seen.instances if supervised or one.name in services.names]
    return Picture(look(instances, services, kafka), kafka, supervised=supervised)


def _watch(options: argparse.Namespace, fleet: Fleet, see: See) -> None:
    """Show it again and again, until Ctrl-C."""
    console = Console(highlight=False, markup=False, emoji=False)
    if options.format == "json" or not console.is_terminal:
        while True:
            _shown(options, fleet, see())
            time.sleep(WATCH_SECONDS)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_picture(fleet, see()).table, refresh=True)
            time.sleep(WATCH_SECONDS)


def _say_gone(fleet: Fleet) -> None:
    for name, code in sorted(fleet.seen.gone.items()):
        say(f"{name} drained." if code == DONE else f"{name} ended with exit code {code}.")


@contextmanager
def _kafka(settings: config.Settings) -> Iterator[See]:
    """Yield what asks Kafka; where it cannot be reached, that is said once."""
    with ExitStack() as stack:
        try:
            read = stack.enter_context(open_topics(settings.kafka, KAFKA_SECONDS))
        except Unreachable as error:
            say(str(error))
            yield lambda: None
            return
        yield lambda: ask(read, settings)


@contextmanager
def _patiently(otherwise: str) -> Iterator[StatusLine]:
    """Yield a line to wait with; Ctrl-C ends the waiting alone, and says *otherwise*."""
    line = StatusLine()
    try:
        yield line
    except KeyboardInterrupt:
        line.finish(otherwise)
        raise
    line.finish()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="services.py",
        description=__doc__,
        epilog="Exit codes: 0 done, everything is at work; 1 something is not; 2 wrong usage or settings; 3 Kafka "
        "cannot be reached.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="start|stop|status|scale|logs")
    for name, action, summary in (
        ("start", start, "start what is missing, and return when it has joined"),
        ("stop", stop, "drain everything, and return when it is gone"),
        ("status", status, "show what runs, what it does, and what waits"),
        ("scale", scale, "start or drain the difference"),
        ("logs", logs, "show what instances wrote"),
    ):
        one = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        one.set_defaults(action=action)
        one.add_argument(
            "--folder",
            type=Path,
            default=ROOT,
            help="where they run: .env, data/, logs/ (the checkout)",
        )
        if name in {"start", "scale"}:
            one.add_argument("--processors", type=_count, metavar="N", help="how many shall run")
            one.add_argument("--uploaders", type=_count, metavar="N", help="how many shall run")
        if name in {"start", "scale", "status"}:
            one.add_argument("--format", choices=("text", "json"), default="text", help="(text)")
    _add_more(commands.choices)
    return parser


def _add_more(commands: dict[str, argparse.ArgumentParser]) -> None:
    commands["status"].add_argument(
        "--watch", action="store_true", help="again and again, until Ctrl-C"
    )
    commands["stop"].add_argument(
        "--timeout",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="then stop at once: tasks in hand are delivered again elsewhere (wait as long as they take)",
    )
    commands["logs"].add_argument(
        "names", nargs="*", metavar="NAME", help="processor-1, or processor for all of them"
    )
    commands["logs"].add_argument(
        "--lines", type=_count, default=20, metavar="N", help="the last so many of each (20)"
    )
    commands["logs"].add_argument(
        "--follow", action="store_true", help="go on with what is written, until Ctrl-C"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number: give 0, 1, 2, …")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
