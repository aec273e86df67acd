"""Records: any value in a topic decodes to a valid message or to an error with a code."""

from __future__ import annotations

import contextlib
import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.callback import Callback, webhook_id
from common.deadline import Deadline
from common.errors import HandoffMissing, InvalidMessage, InvalidTask, ModelNotFound, TaskError
from common.handoff import FolderHandoff
from common.kafka_settings import KafkaSettings
from common.messages import Addressee, Link, Message, Origin, Outcome, Result, Task
from common.publisher import Publisher
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE, OUTCOME, Retries
from common.separation import models
from tools.fuzz import examples
from tools.fuzz.record_inputs import inputs

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
ORIGIN = Origin(topic="uvr_tasks", partition=0, offset=42)
RETRIES = Retries("r", [5.0], Publisher(KafkaSettings(("nobody:1",))))
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
EMPTY = Path(_FOLDER.name)


def fuzz(seed: int, count: int) -> int:
    """Try *count* records; see `tools.fuzz`."""
    return examples.run(inputs(), check, bytes, seed=seed, count=count)


def check(value: bytes) -> None:
    """Read *value* as each kind of message.

    Raises:
        AssertionError: a promise is broken. So does any other error.
    """
    addressee = Addressee.decode(value)
    task = _read(Task.decode, value, InvalidMessage, InvalidTask)
    is_unreadable = task == "invalid_message"
    assert (addressee is None) == is_unreadable, "an addressee and no task id, or the reverse"
    if addressee is not None:
        _check_task(addressee)
    if isinstance(task, Task):
        _check_task(task)
        _check_same(Task.decode, task)
    result = _read(Result.decode, value, InvalidMessage)
    if isinstance(result, Result):
        _check_same(Result.decode, result)
        _check_common(result)
        _check_same(Outcome.decode, Outcome.of(result, None))
        if result.stems is not None:
            with contextlib.suppress(HandoffMissing):
                FolderHandoff(EMPTY).fetch(result.stems, EMPTY, Deadline(30))
                raise AssertionError("stems were found in an empty handoff")
    outcome = _read(Outcome.decode, value, InvalidMessage)
    if isinstance(outcome, Outcome):
        _check_outcome(outcome)
    _check_record(value)


def _read(
    decode: Callable[[bytes], Message], value: bytes, *errors: type[TaskError]
) -> Message | str:
    try:
        return decode(value)
    except errors as error:
        _check_printable(error)
        return error.code


def _check_printable(error: TaskError) -> None:
    assert error.message.isprintable(), "an error's message has control characters"


def _check_same(decode: Callable[[bytes], Message], message: Message) -> None:
    assert decode(message.encode()) == message, "a message changes when it is written and read"


def _check_task(task: Task | Addressee) -> None:
    assert SAFE_ID.fullmatch(task.task_uuid)
    url = task.callback_url
    assert url is None or (url.isprintable() and url.lower().startswith(("http://", "https://")))
    assert len(json.dumps(task.metadata, ensure_ascii=False).encode()) <= 8192
    _check_same(Result.decode, Result.failed(task, ORIGIN, 1, InvalidTask("It is broken.")))
    if isinstance(task, Task) and task.model is not None:
        assert task.model.isprintable()
        try:
            found = models.find(EMPTY, task.model)
        except ModelNotFound as error:
            _check_printable(error)
        else:
            raise AssertionError(f"{found} was found in an empty folder")


def _check_outcome(outcome: Outcome) -> None:
    _check_same(Outcome.decode, outcome)
    _check_common(outcome)
    if outcome.status == "failed" and outcome.error is None:
        return
    if outcome.status == "succeeded" and (outcome.stems is None or outcome.receipt is None):
        return
    assert Callback.of(outcome, lambda key: Link(url=key), "https://example.com").encode()


def _check_common(message: Result | Outcome) -> None:
    assert SAFE_ID.fullmatch(message.task_uuid)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", message.origin.topic)
    assert message.error is None or (
        message.error.message.isprintable() and message.error.code.isidentifier()
    )
    outcome = message if isinstance(message, Outcome) else Outcome.of(message, None)
    assert re.fullmatch(r"msg_[0-9a-f]{32}", webhook_id(outcome))


def _check_record(value: bytes) -> None:
    headers = ((NOT_BEFORE, value[:20]), (ATTEMPT, value[:5000]), (OUTCOME, value))
    record = Record(RETRIES.topics[0], 0, 0, value[:200], value, headers)
    assert re.fullmatch(r"[A-Za-z0-9_.:?-]{0,128}", record.task_uuid)
    assert math.isfinite(RETRIES.seconds_left(record))
    try:
        RETRIES.read(record)
    except InvalidMessage as error:
        _check_printable(error)
