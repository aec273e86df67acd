"""All checks in order, their findings on standard output, and the exit code."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tools.doctor import libraries
from tools.doctor.finding import Finding

COLUMNS = ("status", "name", "seen", "advice")


def run(services: Sequence[str], callback_url: str | None, *, as_json: bool) -> int:
    """Run all checks for *services*; return the exit code."""
    found = list(libraries.check())
    if any(finding.status == "fault" for finding in found):
        for finding in found:  # printed with the standard library alone
            facts = finding.facts
            cells = (str(facts[column] or "") for column in COLUMNS)
            print(json.dumps(facts) if as_json else "\t".join(cells), flush=True)
        return 1
    from tools.topics import command

    return command.run(lambda: _examine(found, services, callback_url, as_json=as_json))


def _examine(
    found: list[Finding], services: Sequence[str], callback_url: str | None, *, as_json: bool
) -> int:
    """Print *found*, then each finding of the other checks when it is made."""
    from loguru import logger

    from tools.terminal.tables import rows, say, status

    logger.remove()  # the findings hold the messages
    with rows(COLUMNS, as_json=as_json) as output, status() as show:
        for finding in found:
            output.add(finding.facts)
        for finding in _findings(services, callback_url, show):
            output.add(finding.facts)
            found.append(finding)
    counts = Counter(finding.status for finding in found)
    say(", ".join(f"{counts[one]} {one}" for one in ("ok", "warning", "fault", "skipped")))
    faults = {finding.name for finding in found if finding.status == "fault"}
    if "settings" in faults:
        return 2
    if faults & {"kafka-reachable", "kafka-advertised"}:
        return 3
    return 1 if faults else 0


def _findings(
    services: Sequence[str], callback_url: str | None, show: Callable[[str], None]
) -> Iterator[Finding]:
    """Yield the findings of all areas; with bad settings, only those of the settings."""
    import config
    from common.errors import SettingsInvalid
    from common.s3 import S3
    from tools.doctor import settings as settings_checks
    from tools.doctor.catalogue import finding

    show("checking the settings")
    yield settings_checks.check_env_file(config.env_file())
    try:
        settings = config.load("uploader" if "uploader" in services else "processor")
        S3(**settings.s3)  # boto3 reads settings of its own
    except SettingsInvalid as error:
        yield from settings_checks.bad(error)
        return
    yield finding("settings", "ok", "all settings are valid")
    from tools.doctor import brokers, callbacks, folders, machine, models, separation, storage

    areas = {
        "Kafka": brokers.check(settings, services),
        "S3": storage.check(settings),
        "callbacks": callbacks.check(settings, callback_url),
        "folders": folders.check(settings),
    }
    if "processor" in services:
        areas["the models"] = models.check(settings)
        areas["a separation"] = separation.check(settings)
    areas["the machine"] = machine.check(settings)
    for area, check in areas.items():
        show(f"checking {area}")
        for one in check:
            seen = one.seen
            for secret in settings.secrets:  # in case a library's message repeats one
                seen = seen.replace(secret, "****")
            yield dataclasses.replace(one, seen=seen)
