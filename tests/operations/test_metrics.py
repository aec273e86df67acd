"""/metrics, /livez and /readyz of running services."""

from __future__ import annotations

import errno
import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kafka import TopicPartition
from loguru import logger
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common import health, metrics
from common.metrics import REGISTRY, Backlog
from common.worker import Worker
from tests.pipeline.services import until
from tests.servers import Wire, free_port

#: Every name, and its labels.
NAMES = {
    "uvr_messages": {"service", "status"},
    "uvr_stage_duration_seconds": {"stage"},
    "uvr_wait_seconds": {"priority"},
    "uvr_in_progress": set(),
    "uvr_last_poll_timestamp_seconds": set(),
    "uvr_consumer_lag": {"topic", "partition"},
    "uvr_realtime_factor": set(),
    "uvr_results_reused": set(),
    "uvr_dead_letters": {"reason"},
    "uvr_records_lost": {"topic"},
    "uvr_commit_failures": set(),
    "uvr_rebalances": set(),
    "uvr_handover_joins": set(),
    "uvr_handovers": set(),
    "uvr_callback_attempts": {"outcome"},
    "uvr_child_restarts": {"reason"},
    "uvr_model_load_seconds": set(),
    "uvr_free_bytes": set(),
    "uvr_dependency_up": {"dependency"},
    "uvr_backlog_audio_seconds": set(),
    "uvr_backlog_drain_seconds": set(),
}


class Observed:
    """A service's metrics and health, over HTTP."""

    def __init__(self, process):
        self._url = process.until_logged("Metrics and health at").split()[-1]

    def get(self, path):
        try:
            with urllib.request.urlopen(self._url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self, path):
        status, body = self.get(path)
        return status, json.loads(body)

    def sample(self, name, **labels):
        """Return the value of a sample; None if it is missing."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return next(
            (sample.value for sample in samples if sample.name == name and sample.labels == labels),
            None,
        )

    def until(self, value, name, **labels):
        until(lambda: self.sample(name, **labels) == value, f"{name}{labels} {value}")


def observed(pipeline, service, **environ):
    pipeline.started(service, METRICS_PORT=str(free_port()), **environ)
    return Observed(pipeline.processes[-1])


def test_every_metric_exists_with_its_labels():
    families = {family.name: family for family in REGISTRY.collect()}

    assert families.keys() == NAMES.keys()
    for name, family in families.items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == NAMES[name], sample


def test_no_label_holds_a_task_or_a_url():
    assert {label for labels in NAMES.values() for label in labels}.isdisjoint(
        {"task_uuid", "url", "key", "model"}
    )
    assert (metrics.STAGE_BUCKETS[0], metrics.STAGE_BUCKETS[-1]) == (0.1, 3600)


def test_services_at_work_feed_their_metrics(pipeline, world):
    processor = observed(pipeline, "processor")
    uploader = observed(pipeline, "uploader")
    task = {"topic": pipeline.tasks, "partition": "0"}
    assert processor.sample("uvr_backlog_audio_seconds") is None

    world.callback(pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook")))
    pipeline.send(b"no task at all")
    gate = world.gated("/slow.wav")
    waiting = [pipeline.order(world.url("/slow.wav")) for _ in range(3)]
    world.until_asked("/slow.wav")
    processor.until(3, "uvr_consumer_lag", **task)
    in_hand = {
        name: processor.sample(name) for name in ("uvr_in_progress", "uvr_backlog_audio_seconds")
    }
    drain_seconds = processor.sample("uvr_backlog_drain_seconds")
    gate.set()
    for task_uuid in waiting:
        pipeline.outcome(task_uuid)
    pipeline.until_no_lag()

    assert in_hand == {"uvr_in_progress": 1, "uvr_backlog_audio_seconds": 3 * 2.0}
    assert drain_seconds > 0
    processor.until(0, "uvr_consumer_lag", **task)
    assert processor.sample("uvr_messages_total", service="processor", status="succeeded") == 4
    assert processor.sample("uvr_messages_total", service="processor", status="failed") == 1
    assert processor.sample("uvr_dead_letters_total", reason="invalid_message") == 1
    for stage in ("download", "separate", "encode"):
        assert processor.sample("uvr_stage_duration_seconds_count", stage=stage) == 4, stage
    for name in (
        "uvr_realtime_factor",
        "uvr_model_load_seconds",
        "uvr_free_bytes",
        "uvr_rebalances_total",
    ):
        assert processor.sample(name) > 0, name
    assert abs(processor.sample("uvr_last_poll_timestamp_seconds") - time.time()) < 60
    assert uploader.sample("uvr_callback_attempts_total", outcome="delivered") == 1
    assert uploader.sample("uvr_stage_duration_seconds_count", stage="upload") == 4
    assert uploader.sample("uvr_stage_duration_seconds_count", stage="callback") == 1
    assert uploader.sample("uvr_backlog_audio_seconds") is None
    for service in (processor, uploader):
        assert service.health("/livez") == (200, {"status": "ok", "reason": None})
        assert service.health("/readyz") == (200, {"status": "ok", "reason": None})
    assert processor.get("/else")[0] == 404


def test_an_uploader_that_lost_s3_is_alive_but_not_ready(pipeline, world):
    wire = Wire(int(pipeline.environ["S3_ENDPOINT_URL"].rsplit(":", 1)[1].strip("/")))
    pipeline.started("processor")
    uploader = observed(pipeline, "uploader", S3_ENDPOINT_URL=f"http://127.0.0.1:{wire.port}")
    wire.cut()

    task_uuid = pipeline.order(world.url("/song.wav"))
    status, answer = until(
        lambda: found if (found := uploader.health("/readyz"))[0] == 503 else None, "not ready"
    )
    alive = uploader.health("/livez")[0]
    wire.restore()
    pipeline.outcome(task_uuid)

    assert (status, alive, answer["status"]) == (503, 200, "failed")
    assert answer["reason"].startswith("S3 is unavailable: ")
    pipeline.until_no_lag()
    assert uploader.health("/readyz")[0] == 200
    wire.cut()


@pytest.mark.parametrize(
    ("changes", "alive", "ready"),
    [
        ({}, None, None),
        ({"joined": False}, None, "the group has not been joined yet"),
        ({"kafka_lost": True}, None, "Kafka does not answer"),
        (
            {"last_poll": -61.0},
            "the loop has not polled for 61 s",
            "the loop has not polled for 61 s",
        ),
    ],
)
def test_health_names_what_is_wrong(changes, alive, ready):
    facts = {"joined": True, "kafka_lost": False, "last_poll": 0.0, **changes}
    member = SimpleNamespace(**{**facts, "last_poll": time.monotonic() + facts["last_poll"]})
    nothing: Any = None
    worker = Worker(cast("Any", member), nothing, nothing, max_attempts=3, work_seconds=60)

    assert (worker.live(), worker.ready()) == (alive, ready)


def shown(backlog):
    registry = CollectorRegistry()
    registry.register(backlog)
    return set(re.findall(r"^uvr_\S+ \S+$", generate_latest(registry).decode(), re.MULTILINE))


def test_the_backlog_is_an_estimate_from_recent_songs_and_turns():
    backlog = Backlog()
    results, retries = (
        TopicPartition("uvr_results", 1),
        TopicPartition("uvr_results_callback_retry_1", 0),
    )
    lags = {'uvr_consumer_lag{partition="1",topic="uvr_results"} 5.0'}
    lags.add('uvr_consumer_lag{partition="0",topic="uvr_results_callback_retry_1"} 7.0')

    nothing = shown(backlog)
    backlog.note_lags({results: 5, retries: 7}, delayed=[retries.topic])
    unknown = shown(backlog)
    backlog.note_song(10_000)
    for _ in range(Backlog.RECENT // 2):
        backlog.note_song(100)
        backlog.note_song(200)
        backlog.note_attempt(30)

    assert nothing == set()
    assert unknown == lags
    assert shown(backlog) == lags | {
        "uvr_backlog_audio_seconds 750.0",
        "uvr_backlog_drain_seconds 150.0",
    }
    backlog.note_lags({})
    assert shown(backlog) == {"uvr_backlog_audio_seconds 0.0", "uvr_backlog_drain_seconds 0.0"}


def test_free_bytes_are_those_of_a_folders_disk_before_the_folder_is_made(tmp_path):
    metrics.watch_free_bytes([tmp_path / "not" / "yet", tmp_path])

    assert (REGISTRY.get_sample_value("uvr_free_bytes") or 0) > 0


@pytest.mark.parametrize("sick", ["hangs", "fails"])
def test_a_folder_that_is_lost_costs_its_own_metric_alone_and_one_thread(tmp_path, sick):
    answers = threading.Event()

    def absolute():
        if sick == "fails":
            raise OSError(errno.ESTALE, "Stale file handle")
        answers.wait()
        return tmp_path

    threads = threading.active_count()
    metrics.watch_free_bytes([cast("Path", SimpleNamespace(absolute=absolute))])

    shown = [REGISTRY.get_sample_value("uvr_free_bytes") for _ in range(2)]
    others = generate_latest(REGISTRY)
    begun = threading.active_count() - threads
    answers.set()
    metrics.watch_free_bytes([tmp_path])

    assert all(value is not None and math.isnan(value) for value in shown)
    assert b"uvr_in_progress 0.0" in others
    assert begun <= 1


def test_a_taken_port_means_the_next_free_one():
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    port = free_port()

    for _ in range(2):
        health.serve("127.0.0.1", port, live=lambda: None, ready=lambda: "not yet")
    logger.remove(sink)

    urls = [line.split()[-1] for line in said]
    assert urls[0].endswith(f":{port}")
    assert int(urls[1].rsplit(":", 1)[1]) > port
    for url in urls:
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{url}/readyz", timeout=10)
        with raised.value as answer:
            assert json.loads(answer.read()) == {"status": "failed", "reason": "not yet"}
