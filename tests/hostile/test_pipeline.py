"""Both services with every hostile record: each gets its code, and the next good task succeeds."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import count
from typing import Any

import pytest

from tests.hostile import records, urls
from tests.hostile.inside import SECRET, input_folder, inside
from tests.pipeline.services import Pipeline, until
from tests.pipeline.world import World

#: Hostile records between two good tasks; UVR_HOSTILE_STRIDE=1 is the slow form.
STRIDE = int(os.environ.get("UVR_HOSTILE_STRIDE", "5"))
#: The receiver of callbacks has the only allowed address; 127.0.0.1 is the inside.
ALLOWED = "127.0.0.2"
#: So that a broken test does not hang.
PATIENCE_SECONDS = 280 if STRIDE > 1 else 1800
#: The default limit of a topic, less the overhead of a record.
MAX_BYTES = 1_000_000


@pytest.fixture
def receiver():
    """The receiver of callbacks, on the allowed address."""
    try:
        world = World(ALLOWED)
    except OSError:
        pytest.skip(f"needs the address {ALLOWED}; on macOS run `ifconfig lo0 alias {ALLOWED}`")
    yield world
    world.end()


@pytest.fixture
def ran(kafka, _s3_server, tmp_path, receiver):
    """Send the corpus with good tasks in between; yield the run, the receiver and the inside."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path)
    folder = input_folder(tmp_path)
    with inside() as service:
        try:
            pipeline.started(
                "processor", "uploader", INPUT_DIR=str(folder), ALLOWED_ADDRESSES=f"{ALLOWED}/32"
            )
            run = Run(pipeline, (folder / "song.wav").as_uri(), receiver.url("/hook"))
            run.send_records()
            run.send_urls(port=service.port, input=folder.as_posix(), beside=tmp_path.as_posix())
            run.until_done()
            run.look()
            yield run, receiver, service
        finally:
            pipeline.end()


class Run:
    """The records that were sent, and their outcomes."""

    def __init__(self, pipeline: Pipeline, song: str, hook: str) -> None:
        self.pipeline = pipeline
        self._song = song
        self._hook = hook
        self.records: dict[str, records.HostileRecord] = {}
        #: By task_uuid: the codes of the task and of its callback.
        self.codes: dict[str, tuple[str | None, str | None]] = {}
        self.goods: list[str] = []
        self._sent = count()

    def send_records(self) -> None:
        corpus = records.corpus(self._hook, self._song)
        for number, record in enumerate(corpus):
            task_uuid, value = f"record-{number}", record.named(f"record-{number}")
            if len(value or b"") > MAX_BYTES:
                continue  # no topic accepts it; test_messages.py covers it
            self.records[task_uuid] = record
            self._send(value, record.key, list(record.headers))

    def send_urls(self, **places: object) -> None:
        # The others need a resolver of their own.
        named = [url for url in urls.CORPUS if not url.hosts]
        receivers = iter([url for url in named if url.callback == "callback_failed"])
        for number, url in enumerate(named):
            receiver = next(receivers, None) if url.audio != "invalid_task" else None
            if receiver is None:
                self._send_url(f"url-{number}", url.filled(**places), None, url.audio, None)
                continue
            self._send_url(
                f"url-{number}",
                url.filled(**places),
                receiver.filled(**places),
                url.audio,
                receiver.callback,
            )
        assert next(receivers, None) is None
        for number, url in enumerate(url for url in named if url.callback == "invalid_task"):
            self._send_url(f"hook-{number}", self._song, url.filled(**places), "invalid_task", None)

    def _send_url(
        self, task_uuid: str, source: str, receiver: str | None, code: str, callback: str | None
    ) -> None:
        self.codes[task_uuid] = code, callback
        value = {"task_uuid": task_uuid, "audio_url": source, "callback_url": receiver}
        self._send(json.dumps(value).encode(), task_uuid.encode(), [])

    def _send(
        self, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        self.pipeline.producer.send(self.pipeline.tasks, key=key, value=value, headers=headers)
        if next(self._sent) % STRIDE == 0:
            self.goods.append(self.pipeline.order(self._song, task_uuid=f"good-{len(self.goods)}"))

    def until_done(self) -> None:
        """Wait until the last good task, which follows all others, is done and committed."""
        last = self.pipeline.order(self._song, task_uuid="last")
        self.goods.append(last)
        until(
            lambda: self.pipeline.standing(last),
            "the last task's outcome",
            seconds=PATIENCE_SECONDS,
        )
        self.pipeline.until_no_lag()

    def look(self) -> None:
        """Read the results and dead letters."""
        pipeline = self.pipeline
        found = [json.loads(record.value) for record in pipeline.records(pipeline.results)]
        self.results: dict[str, list[dict[str, Any]]] = {}
        for result in found:
            self.results.setdefault(result["task_uuid"], []).append(result)
        self.letters = [
            dict(letter.headers) for letter in pipeline.records(f"{pipeline.tasks}_dlq")
        ]
        self.result_letters = pipeline.records(f"{pipeline.results}_dlq")
        self.callback_letters = {
            json.loads(letter.value)["task_uuid"]: dict(letter.headers)["uvr_dlq-reason"].decode()
            for letter in pipeline.records(f"{pipeline.results}_callback_dlq")
        }

    def code(self, task_uuid: str) -> str | None:
        """Return the code of a task's one result; None when it succeeded."""
        (result,) = self.results[task_uuid]
        return None if result["status"] == "succeeded" else result["error"]["code"]


def test_each_hostile_record_ends_with_its_code_and_stops_no_good_task(ran):
    run, receiver, service = ran

    assert len(run.records) + len(run.codes) > 200
    # Every record has its code; an unreadable one is only dead-lettered.
    unread = {
        task_uuid for task_uuid, record in run.records.items() if record.code == "invalid_message"
    }
    wanted = {
        task_uuid: record.code
        for task_uuid, record in run.records.items()
        if task_uuid not in unread
    }
    wanted |= {task_uuid: code for task_uuid, (code, _) in run.codes.items()}
    wanted |= dict.fromkeys(run.goods)
    assert {task_uuid: run.code(task_uuid) for task_uuid in run.results} == wanted
    set_aside = Counter(code for code in wanted.values() if code == "invalid_task")
    set_aside["invalid_message"] = len(unread)
    assert Counter(letter["uvr_dlq-reason"].decode() for letter in run.letters) == set_aside
    # Every callback was delivered or dead-lettered.
    for task_uuid, record in run.records.items():
        delivered = [
            callback["data"].get("error", {}).get("code")
            for callback in receiver.callbacks_of(task_uuid)
        ]
        assert delivered == ([record.code] if record.answered else []), record.name
    callbacks = {task_uuid: code for task_uuid, (_, code) in run.codes.items() if code is not None}
    assert run.callback_letters == callbacks
    assert run.result_letters == []
    # Nothing internal was reached or read, and no log line was forged.
    assert service.reached == []
    assert SECRET not in json.dumps(run.results)
    for process in run.pipeline.processes:
        assert [line for line in process.log.split("\n") if not line.isprintable()] == []
        assert [line for line in process.log.split("\n") if line.startswith(records.LOG_LINE)] == []
        assert "Traceback" not in process.log
