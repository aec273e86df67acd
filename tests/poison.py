"""Records that strangers may put on the task topic, each with the code it must get.

`answered` says whether the id and the callback URL can be read, so that a failed callback must follow.
"""

import json
from dataclasses import dataclass

GOOD_ID = "poisoned"


@dataclass(frozen=True)
class Poison:
    name: str
    value: bytes | None
    code: str
    answered: bool = False


def task(**fields: object) -> bytes:
    """Encode a task that would be good but for *fields*."""
    return json.dumps({"task_uuid": GOOD_ID, "audio_url": "https://example.com/song.mp3", **fields}).encode()


def corpus(callback_url: str) -> list[Poison]:
    """Return one record for each way in which a task can be broken."""

    def broken(**fields: object) -> bytes:
        return task(callback_url=callback_url, **fields)

    return [
        Poison("a tombstone", None, "invalid_message"),
        Poison("no bytes", b"", "invalid_message"),
        Poison("bad UTF-8", b'{"task_uuid": "\xff\xfe"}', "invalid_message"),
        Poison("not JSON", b"hello", "invalid_message"),
        Poison("a JSON list", b"[1, 2, 3]", "invalid_message"),
        Poison("a JSON string", b'"task"', "invalid_message"),
        Poison("nested 10,000 deep", b"[" * 10_000 + b"]" * 10_000, "invalid_message"),
        Poison("objects nested 10,000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "invalid_message"),
        Poison("900 KB of junk", b"\x00junk" * 180_000, "invalid_message"),
        Poison("NaN", broken(metadata={"x": 0}).replace(b'"x": 0', b'"x": NaN'), "invalid_message"),
        Poison("Infinity", broken(metadata={"x": 0}).replace(b'"x": 0', b'"x": 1e999'), "invalid_task", answered=True),
        Poison(
            "a number of 10,000 digits",
            broken(metadata={"x": 0}).replace(b"0}", b"9" * 10_000 + b"}"),
            "invalid_message",
        ),
        Poison("a lone surrogate", broken(model="x").replace(b'"x"', b'"\\ud800"'), "invalid_message"),
        Poison("no task_uuid", json.dumps({"audio_url": "https://example.com/a.mp3"}).encode(), "invalid_message"),
        Poison("an empty task_uuid", broken(task_uuid=""), "invalid_message"),
        Poison("an overlong task_uuid", broken(task_uuid="a" * 129), "invalid_message"),
        Poison("a unicode task_uuid", broken(task_uuid="grün"), "invalid_message"),
        Poison("a climbing task_uuid", broken(task_uuid="../../etc/passwd"), "invalid_message"),
        Poison("a task_uuid with a line break", broken(task_uuid="a\n"), "invalid_message"),
        Poison("a numeric task_uuid", broken(task_uuid=7), "invalid_message"),
        Poison(
            "no audio_url",
            json.dumps({"task_uuid": GOOD_ID, "callback_url": callback_url}).encode(),
            "invalid_task",
            answered=True,
        ),
        Poison("a numeric audio_url", broken(audio_url=7), "invalid_task", answered=True),
        Poison("an empty audio_url", broken(audio_url=""), "invalid_task", answered=True),
        Poison(
            "an endless audio_url", broken(audio_url="https://example.com/" + "a" * 9000), "invalid_task", answered=True
        ),
        Poison(
            "an audio_url with a line break",
            broken(audio_url="https://example.com/\r\nHost: x"),
            "invalid_task",
            answered=True,
        ),
        Poison("an unknown scheme", broken(audio_url="ftp://example.com/a.mp3"), "url_forbidden", answered=True),
        Poison("a local file", broken(audio_url="file:///etc/passwd"), "url_forbidden", answered=True),
        Poison(
            "a bucket of somebody else", broken(audio_url="s3://somebody-else/a.mp3"), "url_forbidden", answered=True
        ),
        Poison("a numeric callback_url", task(callback_url=7), "invalid_task"),
        Poison("a callback_url to a file", task(callback_url="file:///etc/passwd"), "invalid_task"),
        Poison("an unknown format", broken(output_format="aiff"), "invalid_task", answered=True),
        Poison("an upper-case format", broken(output_format="WAV"), "invalid_task", answered=True),
        Poison("a numeric format", broken(output_format=1), "invalid_task", answered=True),
        Poison("a climbing model", broken(model="../../../etc/passwd"), "invalid_task", answered=True),
        Poison("a model in a folder", broken(model="C:\\models\\x.onnx"), "invalid_task", answered=True),
        Poison("a list for metadata", broken(metadata=[1]), "invalid_task", answered=True),
        Poison("metadata over the limit", broken(metadata={"x": "y" * 4096}), "invalid_task", answered=True),
        Poison(
            "metadata nested deep",
            broken(metadata=json.loads('{"a":' * 60 + "1" + "}" * 60)),
            "invalid_task",
            answered=True,
        ),
    ]
