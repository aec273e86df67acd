"""Spans of one process, exported to a collector, with OpenTelemetry's own settings."""

import pytest
from loguru import logger

from common import tracing
from common.errors import CallbackFailed, DownloadFailed
from common.records import Record

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TASK = Record(
    *("uvr_tasks", 3, 42, b"song-1", b'{"task_uuid": "song-1"}'),
    headers=(("traceparent", f"00-{TRACE}-{SPAN}-01".encode()), ("tracestate", b"vendor=1")),
)
UNTRACED = Record("uvr_tasks", 3, 43, b"song-2", b'{"task_uuid": "song-2"}', headers=())


@pytest.fixture
def collector():
    collector = pytest.importorskip("tests.collector").Collector()
    yield collector
    collector.end()


@pytest.fixture
def exporting(collector, monkeypatch):
    """Export spans of this process, in an environment whose proxy leads nowhere."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=abc",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    tracing.start("processor", "processors", "otlp")
    yield collector
    tracing.stop()


def test_without_spans_the_trace_of_a_record_goes_on_and_none_is_invented():
    with tracing.processing(TASK, 1), tracing.stage("callback"):
        headers, request = tracing.record_headers(), tracing.request_headers()
        again = tracing.request_headers()
    with tracing.processing(UNTRACED, 1), tracing.stage("callback"):
        assert (tracing.record_headers(), tracing.request_headers()) == ([], {})

    assert tuple(headers) == TASK.headers
    assert request["traceparent"].startswith(f"00-{TRACE}-")
    assert request["tracestate"] == "vendor=1"
    assert len({request["traceparent"], again["traceparent"], headers[0][1].decode()}) == 3
    assert tracing.record_headers() == []


def test_spans_are_linked_below_that_of_the_record_and_exported_past_the_environments_proxy(
    exporting,
):
    lines = []
    sink = logger.add(lambda message: lines.append(message.record["extra"]))
    with tracing.processing(TASK, 2):
        with tracing.stage("download"):
            logger.info("Downloading")
        headers = tracing.record_headers()
        with tracing.stage("callback"):
            tracing.note({"server.address": "example.com"})
            request = tracing.request_headers()
    logger.remove(sink)
    tracing.stop()

    spans = exporting.of(TRACE)
    task, download, callback = (spans[n] for n in ("process uvr_tasks", "download", "callback"))
    assert [(span.parent_id, span.kind) for span in (task, download, callback)] == [
        (SPAN, 5),
        (task.span_id, 1),
        (task.span_id, 3),
    ]
    assert {(span.state, span.status) for span in spans.values()} == {("vendor=1", 0)}
    assert task.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "uvr_tasks",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "processors",
        "messaging.kafka.offset": 42,
        "messaging.message.conversation_id": "song-1",
        "messaging.message.body.size": len(TASK.value or b""),
        "uvr.attempt": 2,
    }
    assert callback.attributes == {
        "http.request.method": "POST",
        "server.address": "example.com",
    }
    assert task.resource["service.name"] == "uvr-processor"
    assert task.resource["deployment.environment.name"] == "test"
    assert exporting.headers[0]["x-api-key"] == "abc"
    assert dict(headers)["traceparent"].decode() == f"00-{TRACE}-{task.span_id}-01"
    assert request["traceparent"] == f"00-{TRACE}-{callback.span_id}-01"
    assert lines == [{"trace_id": TRACE, "span_id": download.span_id}]


def test_a_service_name_of_the_environment_wins(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "separation")
    tracing.start("processor", "processors", "otlp")
    with tracing.processing(TASK, 1):
        pass
    tracing.stop()

    assert collector.of(TRACE)["process uvr_tasks"].resource["service.name"] == "separation"


def test_a_failure_is_the_error_of_its_spans_and_a_record_without_a_trace_begins_one(exporting):
    with tracing.processing(UNTRACED, 1):
        trace_id = dict(tracing.record_headers())["traceparent"].decode().split("-")[1]
        with pytest.raises(CallbackFailed), tracing.stage("callback"):
            raise CallbackFailed("It answered 500.")
        tracing.fail(DownloadFailed("It answered 404."))
    tracing.stop()

    spans = exporting.of(trace_id)
    assert spans["process uvr_tasks"].parent_id == ""
    assert {name: (span.status, span.attributes["error.type"]) for name, span in spans.items()} == {
        "process uvr_tasks": (2, "download_failed"),
        "callback": (2, "callback_failed"),
    }


def test_a_trace_that_is_not_sampled_goes_on_unsampled_and_is_not_exported(exporting):
    headers = (("traceparent", f"00-{TRACE}-{SPAN}-00".encode()),)
    unsampled = Record("uvr_tasks", 0, 0, b"a", b"{}", headers)
    with tracing.processing(unsampled, 1):
        sent = dict(tracing.record_headers())["traceparent"].decode()
    tracing.stop()

    assert sent.startswith(f"00-{TRACE}-")
    assert sent.endswith("-00")
    assert exporting.spans == []


@pytest.mark.parametrize("exporter", ["none", "console"])
def test_another_exporter_than_otlp_exports_nothing(exporter):
    tracing.start("processor", "processors", exporter)
    with tracing.processing(UNTRACED, 1):
        assert tracing.record_headers() == []
