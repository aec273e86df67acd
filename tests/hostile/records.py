"""Hostile records for the task topic, each with its expected error code; None for a good one.

Every record that broke something, or that scripts/fuzz.py found, is added here.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

#: A placeholder for the record's task_uuid; see `HostileRecord.named`.
ID = "hostile-id"
LOG_LINE = "2026-11-21T07:05:00.000+0000 INFO    1 x Offset committed successfully"


@dataclass(frozen=True)
class HostileRecord:
    """A record and its expected outcome; `answered` when a callback must be sent."""

    name: str
    value: bytes | None
    code: str | None
    answered: bool = False
    key: bytes | None = b"k"
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def readable(self) -> bool:
        """Whether the record is a valid task, even one that will fail."""
        return self.code not in {"invalid_message", "invalid_task"}

    def named(self, task_uuid: str) -> bytes | None:
        """Return its value with *task_uuid*, which identifies its outcome."""
        return self.value and self.value.replace(ID.encode(), task_uuid.encode())


def task(**fields: object) -> bytes:
    """Encode a task that is good except for *fields*."""
    return json.dumps(
        {"task_uuid": ID, "audio_url": "https://example.com/song.mp3", **fields}
    ).encode()


def corpus(
    callback_url: str = "https://example.com/hook", audio_url: str = "https://example.com/song.mp3"
) -> list[HostileRecord]:
    """Return all hostile records, with this receiver and song."""

    def whole(**fields: object) -> bytes:
        return task(**{"callback_url": callback_url, "audio_url": audio_url, **fields})

    def number(digits: bytes) -> bytes:
        return whole(metadata={"x": 0}).replace(b'"x": 0', b'"x": ' + digits)

    def unread(name: str, value: bytes | None) -> HostileRecord:
        return HostileRecord(name, value, "invalid_message")

    def refused(name: str, *, answered: bool = True, **fields: object) -> HostileRecord:
        return HostileRecord(name, whole(**fields), "invalid_task", answered)

    def forbidden(name: str, url: str) -> HostileRecord:
        return HostileRecord(name, whole(audio_url=url), "url_forbidden", answered=True)

    def no_model(name: str, model: str) -> HostileRecord:
        return HostileRecord(name, whole(model=model), "model_not_found", answered=True)

    def good(
        name: str, value: bytes | None = None, *, key: bytes | None = b"k", **headers: bytes
    ) -> HostileRecord:
        return HostileRecord(
            name, value or whole(), None, answered=True, key=key, headers=tuple(headers.items())
        )

    return [
        # Not a JSON object.
        unread("a tombstone", None),
        unread("no bytes", b""),
        unread("bad UTF-8", b'{"task_uuid": "\xff\xfe"}'),
        unread("overlong UTF-8", whole(model="x").replace(b'"x"', b'"\xc0\xae\xc0\xae"')),
        unread("a surrogate in UTF-8", whole(model="x").replace(b'"x"', b'"\xed\xa0\x80"')),
        unread("a lone surrogate", whole(model="x").replace(b'"x"', b'"\\ud800"')),
        unread("a lone surrogate in a key", whole(metadata={"x": 0}).replace(b'"x"', b'"\\udfff"')),
        unread("UTF-16", whole().decode().encode("utf-16")),
        unread("UTF-32", whole().decode().encode("utf-32")),
        unread("a byte order mark", b"\xef\xbb\xbf" + whole()),
        unread("gzip", gzip.compress(whole())),
        unread("not JSON", b"hello"),
        unread("not JSON, with braces and tags", b"{} {0} {task_uuid} <red>%s</red>"),
        unread(
            "not JSON, with terminal escapes", b"\x1b]0;owned\x07\x1b[2J\r\n" + LOG_LINE.encode()
        ),
        unread("single quotes", b"{'task_uuid': 'a'}"),
        unread("a trailing comma", whole()[:-1] + b",}"),
        unread("a comment", whole() + b"// x"),
        unread("two objects", whole() + whole()),
        unread("half an object", whole()[:-9]),
        unread("a JSON list", b"[1, 2, 3]"),
        unread("a JSON string", b'"task"'),
        unread("a JSON null", b"null"),
        # Sizes, depths and counts.
        unread("nested 10,000 deep", b"[" * 10_000 + b"]" * 10_000),
        unread("nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
        unread("objects nested 10,000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        unread(
            "an unknown field nested 10,000 deep",
            whole()[:-1] + b', "z": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        ),
        unread("900 KB of junk", b"\x00junk" * 180_000),
        unread("more than is read", task(metadata={f"{key:x}" * 8: 0 for key in range(80_000)})),
        refused("900 KB of keys", metadata={f"key-{key:08}": 0 for key in range(45_000)}),
        refused("metadata over the limit", metadata={"x": "y" * 4096}),
        refused("metadata over the limit in bytes alone", metadata={"x": "ü" * 2100}),
        refused("metadata nested deep", metadata=json.loads('{"a":' * 60 + "1" + "}" * 60)),
        refused("an endless audio_url", audio_url="https://example.com/" + "a" * 9000),
        refused(
            "an endless callback_url",
            answered=False,
            callback_url="https://example.com/" + "a" * 9000,
        ),
        refused("a model name of 256 letters", model="a" * 256),
        # Numbers.
        unread("NaN", number(b"NaN")),
        unread("-Infinity", number(b"-Infinity")),
        unread("a number of 10,000 digits", number(b"9" * 10_000)),
        HostileRecord(
            "a number that no float holds", number(b"1e999"), "invalid_task", answered=True
        ),
        good("a number of 4,000 digits", number(b"9" * 4000)),
        good("a number that is nearly none", number(b"-1e-999")),
        # Ids.
        unread("no task_uuid", json.dumps({"audio_url": "https://example.com/a.mp3"}).encode()),
        unread("an empty task_uuid", whole(task_uuid="")),
        unread("an overlong task_uuid", whole(task_uuid="a" * 129)),
        unread("a task_uuid of 500 KB", whole(task_uuid="a" * 500_000)),
        unread("a unicode task_uuid", whole(task_uuid="grün")),
        unread("a fullwidth task_uuid", whole(task_uuid="ａｂｃ")),
        unread("a climbing task_uuid", whole(task_uuid="../../etc/passwd")),
        unread("a task_uuid of dots", whole(task_uuid="..")),
        unread("an encoded climbing task_uuid", whole(task_uuid="%2e%2e%2f")),
        unread("a task_uuid with a line break", whole(task_uuid="a\n")),
        unread("a task_uuid with a forged log line", whole(task_uuid=f"a\n{LOG_LINE}")),
        unread("a task_uuid with a NUL", whole(task_uuid="a\x00")),
        unread("a task_uuid written backwards", whole(task_uuid="a\u202eb")),
        unread("a task_uuid with braces", whole(task_uuid="{}")),
        unread("a numeric task_uuid", whole(task_uuid=7)),
        unread("a true task_uuid", whole(task_uuid=True)),
        unread("a null task_uuid", whole(task_uuid=None)),
        unread("a list of task_uuids", whole(task_uuid=[ID])),
        unread("two task_uuids, the second bad", whole()[:-1] + b', "task_uuid": "../x"}'),
        good("two task_uuids, of which the second counts", b'{"task_uuid": "../x", ' + whole()[1:]),
        good("an escaped task_uuid", whole().replace(b'"task_uuid"', b'"\\u0074ask_uuid"')),
        # Sources and receivers; urls.py has the spellings of URLs.
        HostileRecord(
            "no audio_url",
            json.dumps({"task_uuid": ID, "callback_url": callback_url}).encode(),
            "invalid_task",
            True,
        ),
        refused("a numeric audio_url", audio_url=7),
        refused("an audio_url in a list", audio_url=["https://example.com/a.mp3"]),
        refused("an empty audio_url", audio_url=""),
        refused("an audio_url with a line break", audio_url="https://example.com/\r\nHost: x"),
        refused("an audio_url written backwards", audio_url="https://example.com/\u202e3pm.a"),
        refused("an audio_url with a terminal escape", audio_url="https://example.com/\x1b[31m"),
        forbidden("an unknown scheme", "ftp://example.com/a.mp3"),
        forbidden("a local file", "file:///etc/passwd"),
        forbidden("a bucket of somebody else", "s3://somebody-else/a.mp3"),
        refused("a numeric callback_url", answered=False, callback_url=7),
        refused("a callback_url to a file", answered=False, callback_url="file:///etc/passwd"),
        refused(
            "a callback_url with a header",
            answered=False,
            callback_url="https://example.com/\r\nX: y",
        ),
        refused(
            "a callback_url without a scheme", answered=False, callback_url="//example.com/hook"
        ),
        # Formats and models.
        refused("an unknown format", output_format="aiff"),
        refused("an upper-case format", output_format="WAV"),
        refused("a format with a line break", output_format="wav\n"),
        refused("a climbing format", output_format="wav/../../x"),
        refused("a numeric format", output_format=1),
        refused("an unknown priority", priority="urgent"),
        refused("an upper-case priority", priority="HIGH"),
        refused("a numeric priority", priority=9),
        refused("a list of priorities", priority=["high"]),
        refused("a climbing model", model="../../../etc/passwd"),
        refused("a model of dots", model=".."),
        refused("a model in a folder", model="C:\\models\\x.onnx"),
        refused("a model with another stream", model="x.onnx:evil"),
        refused("a model with a NUL", model="x.onnx\x00.png"),
        refused("a model with a line break", model=f"x\n{LOG_LINE}"),
        refused("a model written backwards", model="x\u202exnno."),
        refused("a model of a space that is not seen", model="x\u200b.onnx"),
        refused("an empty model", model=""),
        refused("a numeric model", model=7),
        no_model("a model with braces and tags", "{} {0} <red>%s"),
        no_model("a model with a command", "$(touch x) `id` ; rm -rf *"),
        no_model("a model named like an option", "--help"),
        no_model("a model name longer than any file's", "ü" * 255),
        no_model("a hidden model", ".env"),
        # Metadata.
        refused("a list for metadata", metadata=[1]),
        refused("a string for metadata", metadata="{}"),
        good(
            "metadata with braces, tags and escapes",
            whole(metadata={"{}": "<red>{0}%s\x1b[31m\x00\r\n\u202e"}),
        ),
        good(
            "metadata with keys of other languages' objects",
            whole(metadata={"__proto__": {"x": 1}, "$where": ""}),
        ),
        good("fields that nobody knows", whole(__class__="x", task_uuid_="../x", importance=-1)),
        # Keys and headers.
        good("no key", key=None),
        good("an empty key", key=b""),
        good("a key that is no text", key=b"\xff\xfe\x00\x80"),
        good("a key of 100 KB", key=b"../" * 33_333),
        good("a key with a forged log line", key=f"x\n{LOG_LINE}\x1b[2J".encode()),
        HostileRecord(
            "a bad key on what cannot be read",
            b"{",
            "invalid_message",
            key=f"x\n{LOG_LINE}\x1b[2J".encode(),
        ),
        HostileRecord(
            "a key that passes for a log line",
            b"{",
            "invalid_message",
            key=b"x Received task {} <red>",
        ),
        good(
            "headers with braces and escapes",
            None,
            **{"{}<red>\x1b[2J\r\n\u202e": b"\xff{}\x1b[2J\r\n"},
        ),
        good("a header without a name", None, **{"": b"x"}),
        good(
            "headers of our own",
            None,
            **{"uvr-attempt": b"nan", "uvr-not-before": b"1e999", "uvr-outcome": b"{}"},
        ),
        HostileRecord(
            "headers of a dead letter",
            b"{",
            "invalid_message",
            headers=(
                ("uvr_dlq-reason", b"internal_error"),
                ("uvr_dlq-redrives", b"-1"),
                ("uvr_dlq-x", b"\xff"),
            ),
        ),
        HostileRecord(
            "a thousand headers",
            b"{",
            "invalid_message",
            headers=tuple((f"h{n}", b"\x00" * 100) for n in range(1000)),
        ),
        HostileRecord(
            "a header of 400 KB", b"{", "invalid_message", headers=(("h", b"\xff" * 400_000),)
        ),
    ]
