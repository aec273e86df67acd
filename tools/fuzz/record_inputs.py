"""Records that hypothesis generates: valid documents with changes, and nonsense."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from common.errors import InvalidTask
from common.messages import Message, Origin, Result, Stem, Stems, Task
from tests.fixtures_edges import make_outcome, make_receipt
from tests.hostile import records

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
#: Placeholder for a number that is valid JSON but that `json.dumps` cannot write.
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
FRAGMENTS = [b"\xff", b"\\ud800", b"NaN", b"1e999", b'"', b"{", b"\x00", b"[" * 300]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**300, 0.5, -0.0, 5e-324, 1.8e308, True]


def inputs() -> st.SearchStrategy[bytes]:
    """Return a strategy of records: changed documents, the mutated corpus, and random bytes."""
    # A large record only takes longer.
    values = [record.value for record in records.corpus() if record.value]
    corpus = st.sampled_from([value for value in values if len(value) < 20_000])
    documents = _changed_documents()
    return st.one_of(
        documents,
        documents.flatmap(_mutated),
        corpus.flatmap(_mutated),
        st.binary(max_size=200),
    )


def _documents() -> list[dict[str, Any]]:
    origin = Origin(topic="uvr_tasks", partition=0, offset=42)
    task = Task(
        task_uuid="a",
        audio_url="http://h/a",
        callback_url="http://h/",
        model="m.onnx",
        output_format="wav",
    )
    stem = Stem(path="a/b/vocals.wav", bytes=1, sha256="0" * 64, format="wav")
    results = [
        Result.succeeded(task, origin, 1, Stems(vocals=stem, instrumental=stem), make_receipt()),
        Result.failed(task, origin, 1, InvalidTask("It is broken.")),
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
def _mutated(draw: st.DrawFn, value: bytes) -> bytes:
    content = bytearray(value)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        removed = draw(st.sampled_from([0, 0, 1, 1, 2, len(content)]))
        content[at : at + removed] = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(FRAGMENTS),
            )
        )
    return bytes(content)
