"""What is wrong and what to do, the worst first, from a snapshot of the services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.disk import size
from common.errors import CallbackGone
from tools.services.ends import End
from tools.services.recent import FailedTask, Recent, SetAside
from tools.services.surroundings import Surroundings
from tools.services.view import GroupView, InstanceView
from tools.terminal.words import ago, count

#: An end that is followed by a restart is worth a look for this long.
END_SECONDS = 600.0
#: S3 refuses requests more than 15 minutes off, most receivers callbacks more than 5.
SKEW_WARNING_SECONDS, SKEW_FAULT_SECONDS = 60.0, 300.0

#: Failures whose cause is here and not with the sender of the task; and what to do about each.
ADVICE = {
    "model_not_found": "download it (python scripts/models.py download spleeter-2stems), put it "
    "into UVR_MODEL_DIR, or correct UVR_MODEL or the sender's tasks",
    "model_invalid": "replace the model's file (python scripts/models.py verify)",
    "out_of_memory": "raise SEPARATION_MEMORY_BYTES or run fewer processors on the machine",
    "engine_crashed": "see logs/processor.log",
    "separation_failed": "see logs/processor.log",
    "separation_timeout": "give the processor more cores, or raise SEPARATION_TIMEOUT_SECONDS",
    "encode_failed": "see logs/processor.log",
    "worker_lost": "see how its processes ended, below",
    "handoff_missing": "check that both services have the same HANDOFF_URL",
    "upload_failed": "check S3",
    "disk_full": "make room",
    "internal_error": "see the traceback in logs/",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a `fault` hinders the services now, a `warning` hindered a task.

    The lower `rank` is worse; of one rank, the newest comes first.
    """

    kind: Literal["fault", "warning"]
    rank: int
    text: str
    at: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What a verdict is made of; `kafka_problem` is None if Kafka answered."""

    instances: Sequence[InstanceView]
    ends: Sequence[End]
    supervised: bool
    groups: Sequence[GroupView]
    kafka_problem: str | None
    surroundings: Surroundings
    recent: Recent = field(default_factory=Recent)
    #: Whether the services are to run here; elsewhere, only the groups' members are known.
    local: bool = True


def judge(facts: Facts, now: float) -> list[Finding]:
    """Return everything that is wrong at *now*, in seconds since the epoch, the worst first."""
    found = [
        *_kafka(facts),
        *_s3(facts),
        *_clock(facts),
        *_disks(facts),
        *_instances(facts),
        *_waits(facts),
        *_groups(facts),
        *_model(facts),
        *_ends(facts, now),
        *_set_aside(facts, now),
        *_failures(facts, now),
        *_callbacks(facts, now),
    ]
    return sorted(found, key=lambda one: (one.kind, one.rank, -one.at))


def first_line(findings: Sequence[Finding], facts: Facts) -> str:
    """Return the verdict in one line: all is well, or the worst that is wrong, and what to do."""
    if not findings:
        groups = facts.groups
        running = " and ".join(count(one.members, one.service) for one in groups)
        waiting = count(sum(one.lag for one in groups), "record")
        return f"All is well: {running} at work, {waiting} waiting or in hand."
    worst, more = findings[0], len(findings) - 1
    rest = f" ({more} more below)" if more else ""
    return f"{worst.kind.capitalize()}: {worst.text}{rest}"


def _kafka(facts: Facts) -> Iterator[Finding]:
    if facts.kafka_problem is not None:
        text = f"{facts.kafka_problem} Start the broker, or see its log; the services go on then."
        yield Finding("fault", 0, text)


def _s3(facts: Facts) -> Iterator[Finding]:
    s3 = facts.surroundings.s3
    if s3 is None or s3.problem is None or _is_skewed(facts):
        return
    text = (
        f"S3 cannot be used (bucket {s3.bucket} at {s3.where}): {s3.problem.rstrip('.')}. Check "
        "the service, S3_ENDPOINT_URL, S3_BUCKET and the credentials; results wait until then."
    )
    yield Finding("fault", 2, text)


def _is_skewed(facts: Facts) -> bool:
    s3 = facts.surroundings.s3
    skew_seconds = s3.skew_seconds if s3 else None
    return skew_seconds is not None and abs(skew_seconds) > SKEW_FAULT_SECONDS


def _clock(facts: Facts) -> Iterator[Finding]:
    s3 = facts.surroundings.s3
    skew_seconds = (s3.skew_seconds if s3 else None) or 0.0
    whose = "S3's"
    if abs(skew_seconds) <= SKEW_WARNING_SECONDS < facts.recent.ahead_seconds:
        skew_seconds, whose = -facts.recent.ahead_seconds, "that of a processor elsewhere"
    if abs(skew_seconds) <= SKEW_WARNING_SECONDS:
        return
    direction = "ahead of" if skew_seconds > 0 else "behind"
    text = (
        f"The clock of this machine is {abs(skew_seconds):.0f} s {direction} {whose}. S3 refuses "
        "requests that are 15 minutes off, receivers refuse callbacks 5 minutes off: let NTP set "
        "the clock (timedatectl set-ntp true)."
    )
    yield Finding("fault" if abs(skew_seconds) > SKEW_FAULT_SECONDS else "warning", 1, text)


def _disks(facts: Facts) -> Iterator[Finding]:
    for folder, disk in facts.surroundings.disks.items():
        if disk.full:
            free = size(disk.free_bytes)
            text = f"The disk of {folder} is full: {free} free. Make room; tasks wait for it."
            yield Finding("fault", 3, text)


def _nothing_runs(facts: Facts) -> bool:
    elsewhere = any(group.members for group in facts.groups)  # systemd's, a container's
    return facts.local and not facts.instances and not elsewhere


def _instances(facts: Facts) -> Iterator[Finding]:
    if _nothing_runs(facts):
        yield Finding("fault", 4, "Nothing is running. Start it: python scripts/services.py start")
    for one in facts.instances:
        if one.last_exit:
            see = f"See python scripts/services.py logs {one.instance.name}"
            text = f"{one.instance.name} {one.last_exit.splitlines()[0].rstrip('.')}. {see}"
            yield Finding("fault", 4, text)
    if facts.local and facts.instances and not facts.supervised:
        text = (
            "The supervisor has exited: nothing restarts an instance that dies. Run python "
            "scripts/services.py start: a new one takes over."
        )
        yield Finding("fault", 6, text)


def _waits(facts: Facts) -> Iterator[Finding]:
    """Yield what instances wait for, unless this machine sees the cause itself."""
    s3 = facts.surroundings.s3
    known = {"Kafka"} if facts.kafka_problem is not None else set()
    known |= {"S3"} if s3 is not None and s3.problem is not None else set()
    advice = {
        "Disk space": "Make room there; tasks wait for it",
        "S3": "Check S3 and the network to it; results wait until then",
        "Kafka": "See the broker's log; the services go on when it answers",
    }
    for one in facts.instances:
        waiting = one.waiting
        if waiting is not None and waiting.what not in known:
            todo = advice.get(waiting.what, "Check it; the instance goes on when it answers")
            text = f"{one.instance.name} waits: {waiting.reason.rstrip('.')}. {todo}."
            yield Finding("fault", 3, text, at=waiting.since)


def _groups(facts: Facts) -> Iterator[Finding]:
    if _nothing_runs(facts):
        return
    here = {one.instance.service for one in facts.instances if one.instance.pid is not None}
    for group in facts.groups:
        if not group.members and group.service not in here:
            waiting = f", and {count(group.lag, 'record')} waiting for one" if group.lag else ""
            text = (
                f"No {group.service} is running (group {group.name} has no member{waiting}). Start "
                f"one: python scripts/services.py start --{group.service}s 1"
            )
            yield Finding("fault", 5, text)


def _model(facts: Facts) -> Iterator[Finding]:
    problem = facts.surroundings.model_problem
    if facts.local and problem is not None:
        text = f"UVR_MODEL is wrong, and tasks that name no model fail: {problem}"
        yield Finding("fault", 7, text)


def _ends(facts: Facts, now: float) -> Iterator[Finding]:
    """Yield the processes that died lately and run again."""
    down = {one.instance.name for one in facts.instances if one.last_exit}
    bad = [
        end
        for end in facts.ends
        if not (end.asked or end.exit_code == 0) and 0 <= now - end.at < END_SECONDS
    ]
    for end in {end.name: end for end in bad if end.name not in down | {"supervisor"}}.values():
        times = sum(one.name == end.name for one in bad)
        again = f", {times} times in ten minutes" if times > 1 else ""
        how = end.how.removesuffix(": see its log")
        text = (
            f"{end.name} {how}, {ago(now - end.at)} ago{again}, and was restarted. See python "
            f"scripts/services.py logs {end.name}"
        )
        yield Finding("warning", 2, text, at=end.at)


def _set_aside(facts: Facts, now: float) -> Iterator[Finding]:
    records = [one for one in facts.recent.dead_letters if not one.callback]
    callbacks = [one for one in facts.recent.dead_letters if one.callback]
    gone = [one for one in callbacks if one.code == CallbackGone.code]
    failed = [one for one in callbacks if one.code != CallbackGone.code]
    if records:
        last = records[-1]
        happened = f"{_many(len(records), 'record was', 'records were')} set aside"
        todo = f"See python scripts/dead_letters.py show {last.position}"
        yield _aside(happened, f"{last.origin}, ", last, todo, now)
    for letters, when in (
        (failed, "When the receiver is well again"),
        (gone, "Nothing to do, unless the receiver's 410 was a mistake"),
    ):
        if letters:
            last = letters[-1]
            happened = f"{_many(len(letters), 'callback was', 'callbacks were')} given up"
            chosen = last.position if len(letters) == 1 else f"--reason {last.code}"
            todo = f"{when}: python scripts/dead_letters.py redrive {chosen} --execute"
            yield _aside(happened, "", last, todo, now)


def _aside(happened: str, what: str, last: SetAside, todo: str, now: float) -> Finding:
    text = (
        f"{happened} in the last hour, the last {ago(now - last.at)} ago: {what}{last.code}: "
        f"{last.message.rstrip('.')}. {todo}"
    )
    return Finding("warning", 2, text, at=last.at)


def _failures(facts: Facts, now: float) -> Iterator[Finding]:
    recent = facts.recent
    aside = {one.code for one in recent.dead_letters}
    codes = Counter(one.code for one in recent.failures if one.code not in aside)
    for code, number in codes.items():
        most = number >= 5 and 2 * number > recent.ended
        if code not in ADVICE and not most:
            continue  # the sender's affair
        last = next(one for one in reversed(recent.failures) if one.code == code)
        yield Finding("warning", 2, _failed(last, number, recent.ended, now), at=last.at)


def _failed(last: FailedTask, number: int, ended: int, now: float) -> str:
    todo = ADVICE.get(last.code, "see what these tasks have in common")
    return (
        f"{number} of {count(ended, 'task')} of the last hour failed with {last.code}, the last "
        f"{ago(now - last.at)} ago ({last.task_uuid}): {last.message.rstrip('.')}. Remedy: {todo}; "
        f"then python scripts/failures.py retry --code {last.code}"
    )


def _callbacks(facts: Facts, now: float) -> Iterator[Finding]:
    recent = facts.recent
    if recent.callbacks_waiting:
        number = recent.callbacks_waiting
        waiting = _many(number, "callback waits", "callbacks wait")
        text = f"{waiting} for another attempt"
        at = 0.0
        if recent.callbacks:
            last_wait = recent.callbacks[-1]
            receivers = len({one.receiver for one in recent.callbacks})
            who, runs = f"The receiver {last_wait.receiver} does", "the receiver"
            if receivers > 1:
                others = count(receivers - 1, "other")
                who, runs = f"Receivers {last_wait.receiver} and {others} do", "them"
            failure = f": {last_wait.failure.rstrip('.')}" if last_wait.failure else ""
            due = min(one.due for one in recent.callbacks)
            when = f"in {ago(due - now)}" if due > now else "now"
            text = (
                f"{who} not accept callbacks{failure}; "
                f"{count(number, 'callback')} waiting, the next attempt {when}. "
                f"Nothing is lost. Tell whoever runs {runs}"
            )
            at = last_wait.at
        yield Finding("warning", 2, f"{text}.", at=at)


def _many(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
