"""Records: whatever lies in a topic is an object of ours or a coded error, and nothing in it acts."""

from __future__ import annotations

import copy
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from common.callback import Callback, webhook_id
from common.deadline import Deadline
from common.errors import HandoffMissing, InvalidMessage, InvalidTask, ModelNotFound, TaskError
from common.handoff import FolderHandoff
from common.kafka_settings import KafkaSettings
from common.messages import Addressee, Message, Origin, Outcome, Result, Stem, Stems, Task
from common.publisher import Publisher
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE, OUTCOME, Retries
from common.separation import models
from tests.fixtures_edges import make_outcome, make_receipt
from tests.hostile import records
from tools.fuzz import examples as made

HARMLESS_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
HARMLESS_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
HARMLESS_WORD = re.compile(r"[A-Za-z0-9_.:?-]{0,128}")
ORIGIN = Origin(topic="uvr_tasks", partition=0, offset=42)
RETRIES = Retries("r", [5.0], Publisher(KafkaSettings(("nobody:1",))))
NASTY = [
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "C:\\x",
    "\\\\host\\x",
    "a\nb",
    "\r\n",
    "\x00",
    "\x1b[2J",
    "\x9b",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u2028",
    "\ud800",
    "\udfff",
    "\ufeff",
    "{}",
    "{0.__class__}",
    "<red>",
    "%s",
    "$(id)",
    "`id`",
    "-",
    "--help",
    "NUL",
    "http://127.0.0.1/",
    "file:///etc/passwd",
    "s3://a/../b",
    "wav",
    "succeeded",
    "9" * 30,
    "0001-01-01T00:00:00+23:59",
]
#: Of a record that is scratched; a large one only takes longer.
MAX_BYTES = 20_000
#: Stands for a number as JSON can spell it and Python's writer cannot.
RAW = "a number"
RAW_NUMBERS = [
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "1E5",
    "-0",
    "0.1e-400",
    "9" * 300,
    "9" * 4300,
    "9" * 4301,
]
MOMENTS = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1969-12-31T23:59:59Z",
    "2026-11-21T07:05:00",
    "7",
]
SCRATCHES = [b"\xff", b"\\ud800", b"NaN", b"1e999", b'"', b"{", b"\x00", b"[" * 300]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**300, 0.5, -0.0, 5e-324, 1.8e308, True]
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
EMPTY = Path(_FOLDER.name)


def fuzz(seed: int, examples: int) -> int:
    """Try so many records; see `tools.fuzz`."""
    return made.run(inputs(), check, bytes, seed=seed, examples=examples)


def inputs() -> st.SearchStrategy[bytes]:
    """Return records: of the corpus and of our own making, each with something changed, and plain
    nonsense.
    """
    corpus = st.sampled_from(
        [record.value for record in records.corpus() if record.value and len(record.value) < 20_000]
    )
    documents = _changed_documents()
    return st.one_of(
        documents,
        documents.flatmap(_scratched),
        corpus.flatmap(_scratched),
        st.binary(max_size=200),
    )


def check(value: bytes) -> None:
    """Read *value* as each kind of message; raises AssertionError, or what no reader may raise."""
    addressee, task = (
        Addressee.decode(value),
        _read(Task.decode, value, InvalidMessage, InvalidTask),
    )
    assert (addressee is None) == (task == "invalid_message"), (
        "whom to tell, and whether there is anybody"
    )
    if addressee is not None:
        _check_task(addressee)
    if isinstance(task, Task):
        _check_task(task)
        _check_same(Task.decode, task)
        _check_model(task.model)
    result, outcome = (
        _read(Result.decode, value, InvalidMessage),
        _read(Outcome.decode, value, InvalidMessage),
    )
    if isinstance(result, Result):
        _check_result(result)
    if isinstance(outcome, Outcome):
        _check_outcome(outcome)
    _check_record(value)


def _read(
    decode: Callable[[bytes], Message], value: bytes, *errors: type[TaskError]
) -> Message | str:
    try:
        return decode(value)
    except errors as error:
        _check_shown(error)
        return error.code


def _check_shown(error: TaskError) -> None:
    assert error.message.isprintable(), "an error's message acts"


def _check_same(decode: Callable[[bytes], Message], message: Message) -> None:
    assert decode(message.encode()) == message, "what was read is not what is written"


def _check_task(task: Task | Addressee) -> None:
    assert HARMLESS_ID.fullmatch(task.task_uuid)
    url = task.callback_url
    assert url is None or (url.isprintable() and url.lower().startswith(("http://", "https://")))
    assert len(json.dumps(task.metadata, ensure_ascii=False).encode()) <= 8192
    _check_same(Result.decode, Result.failed(task, ORIGIN, 1, InvalidTask("It is broken.")))


def _check_model(name: str | None) -> None:
    if name is None:
        return
    assert name.isprintable()
    try:
        found = models.find(EMPTY, name)
    except ModelNotFound as error:
        _check_shown(error)
    else:
        raise AssertionError(f"{found} was found in an empty folder")


def _check_result(result: Result) -> None:
    _check_same(Result.decode, result)
    _check_common(result)
    outcome = Outcome.of(result, None)
    _check_same(Outcome.decode, outcome)
    if result.stems is not None:
        _check_stems(result.stems)


def _check_stems(stems: Stems) -> None:
    try:
        FolderHandoff(EMPTY).fetch(stems, EMPTY, Deadline(30))
    except HandoffMissing:
        return
    raise AssertionError("stems were found in an empty handoff")


def _check_outcome(outcome: Outcome) -> None:
    _check_same(Outcome.decode, outcome)
    _check_common(outcome)
    if outcome.status == "failed" and outcome.error is None:
        return
    if outcome.status == "succeeded" and (outcome.stems is None or outcome.receipt is None):
        return
    assert Callback.of(outcome, lambda key: key).encode()


def _check_common(message: Result | Outcome) -> None:
    assert HARMLESS_ID.fullmatch(message.task_uuid)
    assert HARMLESS_TOPIC.fullmatch(message.origin.topic)
    assert message.error is None or (
        message.error.message.isprintable() and message.error.code.isidentifier()
    )
    outcome = message if isinstance(message, Outcome) else Outcome.of(message, None)
    assert re.fullmatch(r"msg_[0-9a-f]{32}", webhook_id(outcome))


def _check_record(value: bytes) -> None:
    headers = ((NOT_BEFORE, value[:20]), (ATTEMPT, value[:5000]), (OUTCOME, value))
    record = Record(RETRIES.topics[0], 0, 0, value[:200], value, headers)
    assert HARMLESS_WORD.fullmatch(record.task_uuid)
    assert math.isfinite(RETRIES.seconds_left(record))
    try:
        RETRIES.read(record)
    except InvalidMessage as error:
        _check_shown(error)


def _documents() -> list[dict[str, Any]]:
    task = Task(
        task_uuid="a",
        audio_url="http://h/a",
        callback_url="http://h/",
        model="m.onnx",
        output_format="wav",
    )
    stem = Stem(path="a/b/vocals.wav", bytes=1, sha256="0" * 64, format="wav")
    results = [
        Result.succeeded(task, ORIGIN, 1, Stems(vocals=stem, instrumental=stem), make_receipt()),
        Result.failed(task, ORIGIN, 1, InvalidTask("It is broken.")),
    ]
    messages: list[Message] = [task, *results, make_outcome(), make_outcome(failed=True)]
    return [json.loads(message.encode()) for message in messages]


DOCUMENTS = _documents()


def _values() -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(NUMBERS),
        st.sampled_from(NASTY),
        st.text(),
    )
    keys = st.one_of(st.sampled_from(NASTY), st.text(max_size=5))
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )


@st.composite
def _changed_documents(draw: st.DrawFn) -> bytes:
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(list(_places(document))))
        _change(draw, holder, key)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    text = text.replace(f'"{RAW}"', draw(st.sampled_from(RAW_NUMBERS)))
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[dict[str, Any], str]]:  # noqa: ANN401 -- whatever JSON holds
    if isinstance(value, dict):
        for key, child in value.items():
            yield value, key
            yield from _places(child)


def _change(draw: st.DrawFn, holder: dict[str, Any], key: str) -> None:
    how = draw(
        st.sampled_from(["replace", "remove", "extend", "nest", "metadata", "raw", "moment"])
    )
    old = holder.get(key)
    if how == "remove":
        holder.pop(key, None)
        holder.setdefault("x", None)
    elif how == "extend" and isinstance(old, str):
        at = draw(st.integers(0, len(old)))
        holder[key] = (
            old[:at] + draw(st.one_of(st.sampled_from(NASTY), st.text(max_size=3))) + old[at:]
        )
    elif how == "nest":
        for _ in range(draw(st.sampled_from([1, 31, 32, 33, 150, 300]))):
            old = {"x": old}
        holder[key] = old
    elif how == "raw":
        holder[key] = RAW
    elif how == "moment" and isinstance(holder.get("timestamp"), str):
        holder["timestamp"] = draw(
            st.one_of(st.sampled_from(MOMENTS), st.datetimes().map(datetime.isoformat))
        )
    elif how == "metadata":
        holder["metadata"] = {
            draw(st.sampled_from(NASTY)): draw(st.one_of(_values(), st.just(RAW)))
        }
    else:
        holder[key] = draw(_values())


@st.composite
def _scratched(draw: st.DrawFn, value: bytes) -> bytes:
    content = bytearray(value)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        taken = draw(st.sampled_from([0, 0, 1, 1, 2, len(content)]))
        content[at : at + taken] = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b"\xff", b"\\ud800", b"NaN", b"1e999", b'"', b"{", b"\x00"]),
            )
        )
    return bytes(content)
