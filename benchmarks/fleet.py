"""python benchmarks/fleet.py SETTINGS: processors without audio; a helper of waiting.py.

Each member is the processors' own loop in the processors' own group. Instead of downloading and
separating, it sleeps for as long as its task says, and prints when it began. SETTINGS is a JSON
object: kafka (address), topic, group, members (threads), handover (whether they hand over).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/

from loguru import logger

from common.errors import TaskError
from common.kafka_consumer import group_consumer, reading_consumer
from common.kafka_settings import KafkaSettings
from common.member import Member
from common.process import Stop
from common.worker import Attempt, Done, Worker


class Sleeper:
    """Takes as long for a task as the task says."""

    def __init__(self, name: str, member: Member) -> None:
        self._name = name
        self._member = member

    def handle(self, attempt: Attempt) -> Done:
        """Sleep, unless the record is lost meanwhile."""
        task = json.loads(attempt.record.value or b"")
        _say("begun", task["id"], time.time(), self._name, self._member.generation)
        if not attempt.cancelled.wait(task["seconds"]):
            _say("done", task["id"], time.time(), self._name, self._member.generation)
        attempt.check()
        return Done(succeeded=True)

    def fail(self, attempt: Attempt, error: TaskError) -> Done:
        """Report the failure; the benchmark has none."""
        _say("failed", attempt.record.position, time.time(), self._name, error.code)
        return Done(succeeded=False)


def _say(*words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _member(given: dict[str, object], name: str, instance_id: str | None) -> None:
    settings = KafkaSettings(
        (str(given["kafka"]),), session_timeout_ms=20_000, group_instance_id=instance_id
    )
    topics, stop = [str(given["topic"])], Stop("fleet")
    connect = partial(group_consumer, settings, str(given["group"]), 300_000)
    member = Member(connect, topics, stop, lambda: _say("joined", name, time.time()))
    hands_over = given["handover"]
    worker = Worker(
        member,
        Sleeper(name, member),
        stop,
        max_attempts=3,
        work_seconds=600,
        handed_over=topics,
        reader=partial(reading_consumer, settings) if hands_over else None,
    )
    worker.run()


def main() -> None:
    """Run the members until standard input ends."""
    given = json.loads(sys.argv[1])
    logger.remove()
    logger.add(sys.stderr, format="{time} {message}", level="INFO")
    for number in range(given["members"]):
        name = f"{given['name']}-{number}"
        instance = name if given.get("static") else None
        threading.Thread(target=_member, args=(given, name, instance), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
