"""python scripts/doctor.py [--service processor|uploader] [--callback-url URL] [--json]

Every dependency, setting and limit, checked for real with the services' own settings (.env too),
and what to do about each fault: libraries, settings, Kafka with its topics and groups, S3 and the
links that receivers get, callbacks, folders, models, a second of sound through the real separation,
the machine. Nothing is changed but doctor's own probe objects, which it takes away again;
--callback-url sends no event. docs/doctor.md says what each finding means. Exit codes: 0 all is
well (warnings are), 1 faults, 2 wrong usage or bad settings, 3 Kafka cannot be reached.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from tools.doctor import catalogue, libraries
from tools.doctor.finding import Finding
from tools.terminal.status_line import silent

if TYPE_CHECKING:
    import config

DONE, FAULTS, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
SERVICES = ("processor", "uploader")
COLUMNS = ("status", "name", "seen", "advice")

Status = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything, show what was found, and return the exit code."""
    options = _parser().parse_args(arguments)
    options.format = "json" if options.json else options.format
    found = list(libraries.check())
    if any(finding.status == "fault" for finding in found):
        _show_plainly(found, as_json=options.format == "json")
        return FAULTS
    from tools.topics import command

    return command.run(lambda: _examine(options, found))


def _examine(options: argparse.Namespace, found: list[Finding]) -> int:
    """Show the findings as they come."""
    from loguru import logger

    from tools.terminal.tables import rows, say, status

    logger.remove()  # what there is to say is in the findings
    with rows(COLUMNS, as_json=options.format == "json") as output, status() as show:
        for finding in found:
            output.add(finding.facts)
        for finding in _findings(options, show):
            output.add(finding.facts)
            found.append(finding)
    say(_summary(found))
    return _exit_code(found)


def _findings(options: argparse.Namespace, show: Status = silent) -> Iterator[Finding]:
    """Yield the findings of all areas; bad settings end it, for nothing else can be asked by them."""
    import config
    from common.errors import SettingsInvalid
    from tools.doctor import settings as settings_checks

    show("checking the settings")
    yield settings_checks.check_env_file()
    services = (options.service,) if options.service else SERVICES
    try:
        settings = config.load("uploader" if "uploader" in services else "processor")
    except SettingsInvalid as error:
        yield from settings_checks.bad(error)
        return
    yield catalogue.SETTINGS.ok("all are allowed, and go together")
    for area, check in _areas(settings, services, options.callback_url):
        show(f"checking {area}")
        for finding in check:
            yield _without_secrets(finding, settings.secrets)


def _areas(
    settings: config.Settings, services: Sequence[str], callback_url: str | None
) -> list[tuple[str, Iterable[Finding]]]:
    from tools.doctor import brokers, callbacks, folders, machine, models, separation, storage

    processing = [
        ("the models", models.check(settings)),
        ("a separation", separation.check(settings)),
    ]
    return [
        ("Kafka", brokers.check(settings, services)),
        ("S3", storage.check(settings)),
        ("callbacks", callbacks.check(settings, callback_url)),
        ("folders", folders.check(settings)),
        *(processing if "processor" in services else []),
        ("the machine", machine.check(settings)),
    ]


def _without_secrets(finding: Finding, secrets: Iterable[str]) -> Finding:
    """Blot out what must never be shown, should a library's message ever repeat it."""
    seen = finding.seen
    for secret in secrets:
        seen = seen.replace(secret, "****")
    return dataclasses.replace(finding, seen=seen)


def _summary(found: Sequence[Finding]) -> str:
    counts = Counter(finding.status for finding in found)
    return ", ".join(
        f"{counts[status]} {status}" for status in ("ok", "warning", "fault", "skipped")
    )


def _exit_code(found: Sequence[Finding]) -> int:
    faults = {finding.name for finding in found if finding.status == "fault"}
    if catalogue.SETTINGS.name in faults:
        return WRONG_USAGE
    if faults & {catalogue.KAFKA_REACHABLE.name, catalogue.KAFKA_ADVERTISED.name}:
        return UNREACHABLE
    return FAULTS if faults else DONE


def _show_plainly(found: Sequence[Finding], *, as_json: bool) -> None:
    """Show findings without any library."""
    for finding in found:
        facts = finding.facts
        print(
            json.dumps(facts)
            if as_json
            else "\t".join(str(facts[column] or "") for column in COLUMNS),
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doctor.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--service", choices=SERVICES, help="only what this kind of process needs (both)"
    )
    parser.add_argument(
        "--callback-url", metavar="URL", help="try the way to a receiver; no event is sent"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one line each (text)"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
