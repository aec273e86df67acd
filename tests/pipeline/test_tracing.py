"""A task's trace goes on through the pipeline; nothing is invented, and nothing bad passed on."""

import json
import secrets
import signal
import subprocess
import sys

import pytest

from tests.pipeline.scripts import run
from tests.pipeline.services import REPOSITORY, Pipeline, bare_environ, until
from tests.servers import mute_listener

RETRIES = {"CALLBACK_RETRY_DELAYS_SECONDS": "1,1"}


def new_trace():
    """Return the id of a new trace, and the headers that put a record into it."""
    trace_id = secrets.token_hex(16)
    headers = [
        ("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01".encode()),
        ("tracestate", b"vendor=1"),
    ]
    return trace_id, headers


def traced(record):
    """Return the headers of a record that belong to its trace."""
    return [header for header in record.headers if header[0].startswith("trace")]


def records_of(pipeline, topic, task_uuid):
    return [record for record in pipeline.records(topic) if record.key == task_uuid.encode()]


def parent_of(attempt):
    """Return trace id, span id and flags of a callback's traceparent."""
    return attempt.headers["traceparent"].split("-")[1:]


@pytest.fixture(scope="module")
def traceless(kafka, _s3_server, tmp_path_factory):
    """Services that do not export spans, and would not survive an import of OpenTelemetry."""
    folder = tmp_path_factory.mktemp("traceless")
    (folder / "path" / "opentelemetry").mkdir(parents=True)
    (folder / "path" / "opentelemetry" / "__init__.py").write_text("import os; os.abort()")
    pipeline = Pipeline(kafka, _s3_server, folder)
    environ = {"LOG_FORMAT": "json", "PYTHONPATH": str(folder / "path"), **RETRIES}
    pipeline.started("processor", "uploader", **environ)
    yield pipeline
    pipeline.end()


def lines_about(pipeline, task_uuid):
    lines = [
        json.loads(line)
        for process in pipeline.processes
        for line in process.log.splitlines()
        if task_uuid in line
    ]
    return [line for line in lines if line.get("task_uuid") == task_uuid]


def test_a_trace_goes_on_through_result_progress_retries_and_dead_letter_to_the_receiver(
    traceless, shared_world
):
    trace_id, headers = new_trace()
    shared_world.answers["/traced"] = 503
    task_uuid = traceless.order(
        shared_world.url("/song.wav"), callback_url=shared_world.url("/traced"), headers=headers
    )

    attempts = shared_world.until_attempts("/traced", 3)
    dead = f"{traceless.results}_callback_dlq"
    (letter,) = until(lambda: records_of(traceless, dead, task_uuid), "the dead letter")

    assert [parent_of(attempt)[::2] for attempt in attempts] == [[trace_id, "01"]] * 3
    assert [attempt.headers["tracestate"] for attempt in attempts] == ["vendor=1"] * 3
    spans = {parent_of(attempt)[1] for attempt in attempts}
    assert len(spans | {"00f067aa0ba902b7"}) == 4
    (result,) = records_of(traceless, traceless.results, task_uuid)
    retries = [f"{traceless.results}_callback_retry_{number}" for number in (1, 2)]
    parked = [record for topic in retries for record in records_of(traceless, topic, task_uuid)]
    progress = records_of(traceless, f"{traceless.name}_progress", task_uuid)
    assert {record.topic for record in parked} == {*retries}
    assert progress
    for record in (result, letter, *parked, *progress):
        assert traced(record) == headers


def test_every_json_line_about_a_task_has_its_trace(traceless, shared_world):
    trace_id, headers = new_trace()
    task_uuid = traceless.order(
        shared_world.url("/absent.wav"), callback_url=shared_world.url("/hook"), headers=headers
    )
    shared_world.callback(task_uuid)
    traceless.until_no_lag()

    def all_lines():
        found = lines_about(traceless, task_uuid)
        return found if len(found) >= 5 else None

    lines = until(all_lines, "the lines")

    assert {(line["trace_id"], line.get("span_id")) for line in lines} == {(trace_id, None)}
    texts = " ".join(line["message"] for line in lines)
    assert all(
        word in texts for word in ("Received task", "Failed", "Received result", "committed")
    )


def test_a_task_of_high_priority_keeps_its_trace_when_it_is_forwarded(traceless, shared_world):
    gate = shared_world.gated("/long.wav")
    traceless.order(shared_world.url("/long.wav"))
    shared_world.until_asked("/long.wav")
    trace_id, headers = new_trace()
    task_uuid = traceless.order(
        shared_world.url("/song.wav"),
        callback_url=shared_world.url("/high"),
        headers=headers,
        priority="high",
    )
    topic = f"{traceless.tasks}_high"
    (forwarded,) = until(lambda: records_of(traceless, topic, task_uuid), "the forwarded task")
    gate.set()
    shared_world.until_attempts("/high", 1)

    assert traced(forwarded) == headers
    assert {line["trace_id"] for line in lines_about(traceless, task_uuid)} == {trace_id}


def test_a_bad_trace_is_ignored_and_its_bytes_reach_no_request(traceless, shared_world):
    bad = [("traceparent", b"00-x\r\nX-Injected: 1"), ("tracestate", b"a=1\r\nX-Injected: 1")]
    task_uuid = traceless.order(
        shared_world.url("/song.wav"), callback_url=shared_world.url("/bad-trace"), headers=bad
    )

    (attempt,) = shared_world.until_attempts("/bad-trace", 1)

    for name in ("traceparent", "tracestate", "X-Injected"):
        assert name not in attempt.headers
    (result,) = records_of(traceless, traceless.results, task_uuid)
    assert traced(result) == []
    assert not any("trace_id" in line for line in lines_about(traceless, task_uuid))


def test_a_dead_letter_keeps_even_a_bad_trace_unchanged(traceless):
    bad = [("traceparent", b"\xff\r\n"), ("traceparent", b"again"), ("tracestate", b"a=1")]
    traceless.send(b"not a task", b"untraced", headers=bad)

    (letter,) = until(
        lambda: records_of(traceless, f"{traceless.tasks}_dlq", "untraced"), "the dead letter"
    )

    assert traced(letter) == bad


@pytest.mark.parametrize("given", ["--traceparent", "TRACEPARENT"])
def test_submit_puts_its_tasks_into_the_trace_of_its_option_or_environment(
    traceless, shared_world, given
):
    trace_id, headers = new_trace()
    values = {name.upper(): value.decode() for name, value in headers}
    option = given.startswith("--")
    arguments = [given, values["TRACEPARENT"]] if option else []
    environ = {"TRACEPARENT": "not one"} if option else values

    done = run(
        traceless, "submit.py", shared_world.url("/song.wav"), "--task-uuid", f"of-{trace_id}",
        *arguments, **environ,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    (task,) = records_of(traceless, traceless.tasks, f"of-{trace_id}")
    assert traced(task) == (headers[:1] if option else headers)


def test_submit_refuses_a_bad_traceparent_and_ignores_one_of_the_environment(
    traceless, shared_world
):
    command = ("submit.py", shared_world.url("/song.wav"), "--task-uuid", "untraced-1")
    refused = run(traceless, *command, "--traceparent", "00-0-0-01")
    sent = run(traceless, *command, TRACEPARENT="00-0-0-01")

    assert refused.returncode == 2
    assert "'00-0-0-01' is not a traceparent" in refused.stderr
    assert sent.returncode == 0, sent.stderr
    (task,) = records_of(traceless, traceless.tasks, "untraced-1")
    assert traced(task) == []


def test_a_missing_sdk_is_reported_and_keeps_nothing_from_working(tmp_path):
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('no SDK here')")
    code = (
        "from common import tracing\n"
        "tracing.start('processor', 'group', 'otlp')\n"
        "with tracing.stage('download'): assert tracing.record_headers() == []\n"
        "tracing.stop()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**bare_environ(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "No spans are exported: no SDK here" in done.stderr
    assert "-r requirements/opentelemetry.txt" in done.stderr


@pytest.fixture(scope="module")
def collector():
    collector = pytest.importorskip("tests.collector").Collector()
    yield collector
    collector.end()


@pytest.fixture(scope="module")
def exporting(kafka, _s3_server, tmp_path_factory, collector):
    """Services that export spans, in an environment whose proxy leads nowhere."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("exporting"))
    nowhere = "http://127.0.0.1:9"
    environ = {
        "LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=abc",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), nowhere),
        "NO_PROXY": "127.0.0.1",  # for S3; the collector has a name
        **RETRIES,
    }
    pipeline.started("processor", "uploader", **environ)
    yield pipeline
    pipeline.end()


def test_the_spans_of_a_task_are_linked_below_the_producers_span(
    exporting, shared_world, collector
):
    trace_id, headers = new_trace()
    task_uuid = exporting.order(
        shared_world.url("/song.wav"), callback_url=shared_world.url("/spans"), headers=headers
    )
    (attempt,) = shared_world.until_attempts("/spans", 1)
    task_name, result_name = f"process {exporting.tasks}", f"process {exporting.results}"
    names = {task_name, "download", "separate", result_name, "upload", "callback"}

    spans = until(
        lambda: (found := collector.of(trace_id)).keys() >= names and found, "all its spans"
    )

    task, result = spans[task_name], spans[result_name]
    assert spans.keys() == names
    assert {name: (span.parent_id, span.kind) for name, span in spans.items()} == {
        task_name: ("00f067aa0ba902b7", 5),
        "download": (task.span_id, 1),
        "separate": (task.span_id, 1),
        result_name: (task.span_id, 5),
        "upload": (result.span_id, 1),
        "callback": (result.span_id, 3),
    }
    assert {span.state for span in spans.values()} == {"vendor=1"}
    assert {span.status for span in spans.values()} == {0}
    assert task.attributes.items() >= {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": exporting.tasks,
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": f"{exporting.name}_processors",
        "messaging.message.conversation_id": task_uuid,
        "uvr.attempt": 1,
    }.items()  # fmt: skip
    assert spans["callback"].attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": shared_world.server_address[1],
        "http.response.status_code": 204,
    }
    assert task.resource["service.name"] == "uvr-processor"
    assert result.resource["service.name"] == "uvr-uploader"
    assert result.resource["deployment.environment.name"] == "test"
    assert {headers["x-api-key"] for headers in collector.headers} == {"abc"}
    # The receiver goes on below the callback's span, and the result's reader below the task's.
    assert parent_of(attempt) == [trace_id, spans["callback"].span_id, "01"]
    (record,) = records_of(exporting, exporting.results, task_uuid)
    assert dict(record.headers)["traceparent"].decode().split("-")[1:3] == [trace_id, task.span_id]


def test_lines_of_a_task_name_the_span_in_which_they_were_written(
    exporting, shared_world, collector
):
    trace_id, headers = new_trace()
    task_uuid = exporting.order(shared_world.url("/song.wav"), headers=headers)
    exporting.outcome(task_uuid)
    exporting.until_no_lag()
    task = until(lambda: collector.of(trace_id).get(f"process {exporting.tasks}"), "its span")

    lines = lines_about(exporting, task_uuid)

    assert {line["trace_id"] for line in lines} == {trace_id}
    (committed,) = [
        line for line in lines
        if "committed" in line["message"] and exporting.tasks in line["message"]
    ]  # fmt: skip
    assert committed["span_id"] == task.span_id


def test_a_task_without_a_trace_begins_one_and_its_failures_are_errors_of_their_spans(
    exporting, shared_world, collector
):
    shared_world.answers["/refusing"] = 500
    task_uuid = exporting.order(
        shared_world.url("/absent.wav"), callback_url=shared_world.url("/refusing")
    )
    attempts = shared_world.until_attempts("/refusing", 3)

    trace_id = parent_of(attempts[0])[0]

    last = f"process {exporting.results}_callback_retry_2"
    spans = until(
        lambda: (found := collector.of(trace_id)) and last in found and found, "the last span"
    )
    traced = [span for span in collector.spans if span.trace_id == trace_id]
    callbacks = [span for span in traced if span.name == "callback"]

    task = spans[f"process {exporting.tasks}"]
    assert task.parent_id == ""
    assert task.attributes["messaging.message.conversation_id"] == task_uuid
    assert task.attributes["error.type"] == "download_failed"
    assert spans["download"].attributes["error.type"] == "download_failed"
    assert (task.status, spans["download"].status) == (2, 2)
    assert [span.attributes["error.type"] for span in callbacks] == ["callback_failed"] * 3
    assert {span.span_id for span in callbacks} == {parent_of(attempt)[1] for attempt in attempts}


def test_a_collector_that_never_answers_holds_up_no_task_and_no_end(pipeline, shared_world):
    pytest.importorskip("opentelemetry.sdk", reason="the SDK is optional and not installed")
    with mute_listener() as port:
        processor = pipeline.started(
            "processor",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="3600",
            OTEL_BSP_SCHEDULE_DELAY="1",
            OTEL_BSP_MAX_QUEUE_SIZE="2",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
        )
        for _ in range(3):
            pipeline.order(shared_world.url("/song.wav"))
        processor.until_logged("Offset committed successfully", 3)

        processor.signal(signal.SIGTERM)
        code = processor.exit_code()

    assert code == 0
    assert "Shutdown complete" in processor.log


@pytest.mark.full
def test_a_collector_that_is_not_there_is_only_logged(pipeline, shared_world):
    pytest.importorskip("opentelemetry.sdk", reason="the SDK is optional and not installed")
    processor = pipeline.started(
        "processor",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces",
        OTEL_BSP_SCHEDULE_DELAY="1",
    )
    pipeline.order(shared_world.url("/song.wav"))

    processor.until_logged("Offset committed successfully")
    processor.until_logged("opentelemetry")
    processor.signal(signal.SIGTERM)

    assert processor.exit_code() == 0
