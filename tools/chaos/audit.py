"""What became of every task, seen from the outside: Kafka's topics, S3, the receiver, the files
left behind.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from common.messages import Outcome
from common.outages import RemoteError
from tools.chaos.scene import BUCKET, Order, Scene

MAX_OBJECT_BYTES = 1 << 30
LAG_SECONDS = 120.0
PROBE_SECONDS = 0.2
#: A task whose receiver heard of it later than this counts as late: a dead process is missed within
#: seconds.
LATE_SECONDS = 60.0


@dataclass
class Report:
    """The findings; `faults` says in words what breaks a promise.

    The seconds are those from a task's record to its first accepted callback.
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


def audit(scene: Scene, orders: Sequence[Order], allowed_extra: int) -> Report:
    """Check everything that the contract's section 9 promises of *orders*, once the load is over.

    Args:
        scene: where it happened; its services are drained.
        orders: every task that was sent.
        allowed_extra: how many records a kill or a rebalance may have delivered once more, by
            service.
    """
    report = Report(len(orders))
    report.faults += _lag(scene)
    for name in scene.names():
        scene.await_started(name)  # who was killed last may not hear a signal yet
    report.faults += [
        f"{name} ended with {code} instead of 0"
        for name, code in scene.drain(scene.names()).items()
        if code != 0
    ]
    for order in orders:
        wrong = list(_wrong_outcome(scene, order)) + list(_wrong_callbacks(scene, order))
        report.lost += any(text.startswith("lost") for text in wrong)
        report.faults += [f"{order.task_uuid}: {text}" for text in wrong]
    _count_extra(scene, orders, report)
    _measure(scene, orders, report)
    for what, extra in (("tasks", report.extra_tasks), ("results", report.extra_results)):
        if extra > allowed_extra:
            report.faults.append(
                f"{extra} extra deliveries of {what}; at most {allowed_extra} kills and rebalances"
            )
    report.faults += [f"dead letter in {what}" for what in _dead_letters(scene)]
    report.faults += [f"left behind: {path}" for path in _orphans(scene)]
    return report


def _lag(scene: Scene) -> list[str]:
    deadline = time.monotonic() + LAG_SECONDS
    while any(scene.lag().values()) and time.monotonic() < deadline:
        time.sleep(PROBE_SECONDS)
    return [f"the {service}s have lag {lag}" for service, lag in scene.lag().items() if lag]


def _wrong_outcome(scene: Scene, order: Order) -> Iterator[str]:
    """Say what is wrong with what stands in S3."""
    try:
        outcome = Outcome.decode(
            scene.storage.get(BUCKET, f"{order.task_uuid}/result.json", MAX_OBJECT_BYTES)
        )
    except RemoteError:
        yield "lost: it has no outcome"
        return
    origin = (outcome.origin.topic, outcome.origin.partition, outcome.origin.offset)
    if (outcome.status, origin) != (order.status, order.origin):
        yield f"its outcome is {outcome.status} of {origin}, not {order.status} of {order.origin}: {outcome.error}"
    for stem in (outcome.stems.vocals, outcome.stems.instrumental) if outcome.stems else ():
        content = scene.storage.get(BUCKET, stem.key, MAX_OBJECT_BYTES)
        if (len(content), hashlib.sha256(content).hexdigest()) != (stem.bytes, stem.sha256):
            yield f"{stem.key} is not what result.json says"


def _wrong_callbacks(scene: Scene, order: Order) -> Iterator[str]:
    """Say what is wrong with what its receiver heard."""
    heard = [one for one in scene.receiver.received if one.task_uuid == order.task_uuid]
    if not any(one.answered == 200 for one in heard):
        yield "lost: its receiver never heard of it"
    if any(not one.verified for one in heard):
        yield "a callback whose signature does not hold"
    if len({one.webhook_id for one in heard}) > 1:
        yield "callbacks under more than one webhook-id"
    if {one.payload["type"] for one in heard} - {f"uvr.task.{order.status}"}:
        yield "a callback that says something else than its outcome"


def _count_extra(scene: Scene, orders: Sequence[Order], report: Report) -> None:
    begun = Counter(_uuid(line) for line in scene.said("processor") if "Received task" in line)
    results = Counter(json.loads(record.value)["task_uuid"] for record in scene.records("results"))
    taken = sum(
        "Received result" in line and " again, " not in line for line in scene.said("uploader")
    )
    delivered = Counter(one.task_uuid for one in scene.receiver.received if one.answered == 200)
    report.extra_tasks = sum(begun.values()) - len(orders)
    report.extra_results = taken - sum(results.values())
    report.extra_callbacks = sum(delivered.values()) - len(orders)


def _measure(scene: Scene, orders: Sequence[Order], report: Report) -> None:
    told: dict[str, float] = {}
    for one in scene.receiver.received:
        if one.answered == 200:
            told.setdefault(one.task_uuid, one.at)
    waits = [told[order.task_uuid] - order.sent_at for order in orders if order.task_uuid in told]
    if waits:
        report.late = sum(wait > LATE_SECONDS for wait in waits)
        report.median_seconds, report.longest_seconds = (
            round(median(waits), 1),
            round(max(waits), 1),
        )


def _uuid(line: str) -> str:
    return line.partition(" Received task")[0].rpartition(" ")[2]


def _dead_letters(scene: Scene) -> list[str]:
    return [
        f"{what}: {dict(record.headers).get('uvr_dlq-reason')!r} of {record.key!r}"
        for what in ("tasks_dlq", "results_dlq", "results_callback_dlq")
        for record in scene.records(what)
    ]


def _orphans(scene: Scene) -> list[str]:
    """Let one more processor sweep by age what the killed ones left, and return what is still
    there.
    """
    time.sleep(1.1)
    scene.start("processor-0", HANDOFF_RETENTION_SECONDS="1")
    scene.await_started("processor-0")
    scene.drain(["processor-0"])
    return [str(path.relative_to(scene.folder)) for path in scene.left_behind()]
