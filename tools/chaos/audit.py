"""The outcome of every task as an outsider sees it: Kafka, S3, the receiver, files left behind."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from common.messages import Outcome
from common.outages import RemoteError
from tools.chaos.testbed import BUCKET, SentTask, Testbed

MAX_OBJECT_BYTES = 1 << 30
LAG_SECONDS = 120.0
#: A callback after this time is late: a dead process is noticed within seconds.
LATE_SECONDS = 60.0


@dataclass
class Report:
    """The figures; `faults` lists the broken promises.

    The seconds count from a task's record to its first accepted callback.
    """

    tasks: int
    lost: int = 0
    extra_tasks: int = 0
    extra_results: int = 0
    extra_callbacks: int = 0
    late: int = 0
    median_seconds: float = 0.0
    longest_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def audit(testbed: Testbed, sent: Sequence[SentTask], kills: int) -> Report:
    """Check the contract's promises for each task, after the load.

    Args:
        testbed: the system, whose services are drained here.
        sent: every task.
        kills: how many processes of each service were killed.
    """
    report = Report(len(sent))
    deadline = time.monotonic() + LAG_SECONDS
    while any((lags := testbed.topics.lag()).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    report.faults += [f"the {service}s have lag {lag}" for service, lag in lags.items() if lag]
    instances = testbed.instances
    for name in instances.names():
        instances.await_started(name)  # one that was just started may not handle a signal yet
    report.faults += [
        f"{name} exited with {code} instead of 0"
        for name, code in instances.drain(instances.names()).items()
        if code != 0
    ]
    for task in sent:
        wrong = [*_wrong_outcome(testbed, task), *_wrong_callbacks(testbed, task)]
        report.lost += any(text.startswith("lost") for text in wrong)
        report.faults += [f"{task.task_uuid}: {text}" for text in wrong]
    _measure(testbed, sent, report)
    # Counted after the drain: a rebalance may take a record away until then.
    allowed_extra = kills + _abandoned(testbed)
    for what, extra in (("tasks", report.extra_tasks), ("results", report.extra_results)):
        if extra > allowed_extra:
            report.faults.append(
                f"{extra} extra deliveries of {what}, but only {allowed_extra} kills and rebalances"
            )
    report.faults += _leftovers(testbed)
    return report


def _wrong_outcome(testbed: Testbed, task: SentTask) -> Iterator[str]:
    """Yield what is wrong with the outcome in S3."""
    storage, key = testbed.storage, f"{task.task_uuid}/result.json"
    try:
        outcome = Outcome.decode(storage.get(BUCKET, key, MAX_OBJECT_BYTES))
    except RemoteError:
        yield "lost: no outcome in S3"
        return
    origin = (outcome.origin.topic, outcome.origin.partition, outcome.origin.offset)
    if (outcome.status, origin) != (task.status, task.origin):
        yield (
            f"its outcome is {outcome.status} of {origin}, not {task.status} of {task.origin}: "
            f"{outcome.error}"
        )
    for stem in outcome.stems.by_name().values() if outcome.stems else ():
        content = storage.get(BUCKET, stem.key, MAX_OBJECT_BYTES)
        if (len(content), hashlib.sha256(content).hexdigest()) != (stem.bytes, stem.sha256):
            yield f"{stem.key} does not match result.json"


def _wrong_callbacks(testbed: Testbed, task: SentTask) -> Iterator[str]:
    """Yield what is wrong with its callbacks."""
    received = [one for one in testbed.receiver.received if one.task_uuid == task.task_uuid]
    if not any(one.answered == 200 for one in received):
        yield "lost: no callback was delivered"
    if any(not one.verified for one in received):
        yield "a callback has an invalid signature"
    if len({one.webhook_id for one in received}) > 1:
        yield "its callbacks have different webhook-ids"
    if {one.payload["type"] for one in received} - {f"uvr.task.{task.status}"}:
        yield "a callback contradicts its outcome"


def _measure(testbed: Testbed, sent: Sequence[SentTask], report: Report) -> None:
    begun = sum("Received task" in line for line in testbed.instances.log_lines("processor"))
    taken = sum(
        "Received result" in line and "callback attempt" not in line
        for line in testbed.instances.log_lines("uploader")
    )
    accepted = [one for one in testbed.receiver.received if one.answered == 200]
    report.extra_tasks = begun - len(sent)
    report.extra_results = taken - len(testbed.topics.records("results"))
    report.extra_callbacks = len(accepted) - len(sent)
    first_at = {one.task_uuid: one.at for one in reversed(accepted)}
    waits = [first_at[task.task_uuid] - task.sent_at for task in sent if task.task_uuid in first_at]
    if waits:
        report.late = sum(wait > LATE_SECONDS for wait in waits)
        report.median_seconds = round(median(waits), 1)
        report.longest_seconds = round(max(waits), 1)


def _abandoned(testbed: Testbed) -> int:
    """Return how often a process lost the record in its hand, most often by a rebalance."""
    instances = testbed.instances
    lines = (line for one in ("processor", "uploader") for line in instances.log_lines(one))
    return sum("Abandoned" in line for line in lines)


def _leftovers(testbed: Testbed) -> Iterator[str]:
    """Yield the dead letters, and the files that one more processor does not sweep."""
    for what in ("tasks_dlq", "results_dlq", "results_callback_dlq"):
        for record in testbed.topics.records(what):
            reason = dict(record.headers).get("uvr_dlq-reason")
            yield f"dead letter in {what}: {reason!r} of {record.key!r}"
    time.sleep(1.1)
    instances = testbed.instances
    instances.start("processor-0", HANDOFF_RETENTION_SECONDS="1")
    instances.await_started("processor-0")
    instances.drain(["processor-0"])
    folders = (testbed.folder / "data" / name for name in ("work", "handoff"))
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        yield f"left behind: {path.relative_to(testbed.folder)}"
