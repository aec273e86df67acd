"""scripts/test_streaming_pipeline.py: streams through the services, and their statistics."""

import json
import signal
import subprocess
import sys

import pytest

from common.errors import DownloadFailed
from common.messages import Addressee, Origin, Result
from tests.pipeline.scripts import run
from tests.pipeline.services import REPOSITORY, bare_environ
from tools.callbacks.receiver import Received
from tools.stream.tally import Tally, latencies

SCRIPT = "test_streaming_pipeline.py"


def test_a_stream_goes_through_without_loss_and_leaves_nothing_in_s3(fleet):
    before = fleet.pipeline.keys()

    done = run(
        fleet.pipeline,
        SCRIPT,
        "--mode",
        "e2e",
        "--duration",
        "2",
        "--rate",
        "2",
        "--seconds-per-song",
        "0.5",
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    counts = {name: facts[name] for name in ("sent", "results", "callbacks")}
    assert counts == {"sent": 4, "results": 4, "callbacks": 4}
    assert {facts[name] for name in ("lost", "duplicated", "failed", "unverified")} == {0}
    assert facts["callback_seconds"].keys() == {"p50", "p90", "p99", "max"}
    assert 0 < facts["result_seconds"]["p50"] <= facts["callback_seconds"]["max"]
    assert fleet.pipeline.keys() == before


@pytest.mark.full
def test_consume_counts_what_produce_sends(fleet):
    listening = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "scripts" / SCRIPT),
            "--mode",
            "consume",
            "--duration",
            "200",
        ],
        cwd=fleet.pipeline.folder,
        env={**bare_environ(), **fleet.pipeline.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listening.stderr is not None
    assert listening.stderr.readline() == f"Connecting to Kafka at {fleet.pipeline.kafka}…\n"
    assert listening.stderr.readline().startswith(f"Listening to {fleet.pipeline.results}")

    produced = run(fleet.pipeline, SCRIPT, "--mode", "produce", "--duration", "1", "--rate", "3")
    while "results 3" not in (line := listening.stderr.readline()):
        assert line, "it ended"
    listening.send_signal(signal.SIGINT)
    heard, _ = listening.communicate(timeout=60)

    assert produced.returncode == 0, produced.stderr
    assert (json.loads(produced.stdout)["sent"], json.loads(heard)["results"]) == (3, 3)
    assert json.loads(heard)["duplicated"] == 0
    assert listening.returncode == 0


def test_without_services_e2e_fails_at_once(pipeline):
    done = run(pipeline, SCRIPT, "--mode", "e2e", "--duration", "1")

    assert (done.returncode, done.stdout) == (3, "")
    problem = f"Group {pipeline.name}_processors has no processor. Start one: "
    assert f"{problem}python scripts/services.py start" in done.stderr


def result_of(task_uuid, offset):
    origin = Origin(topic="tasks", partition=0, offset=offset)
    return Result.failed(
        Addressee(task_uuid=task_uuid), origin, 1, DownloadFailed("The source is gone.")
    )


def callback_of(task_uuid, at, answered=200):
    body = json.dumps({"data": {"task_uuid": task_uuid}}).encode()
    return Received(f"id-{task_uuid}", body, None, answered, 1, at)


def test_lost_duplicated_and_unverified_tasks_are_counted():
    now = 100.0
    tally = Tally(callbacks=True, clock=lambda: now)
    for task_uuid in ("notified", "result-only", "lost", "unverified"):
        tally.sending(task_uuid)
    now = 102.0
    for task_uuid, offset in (
        ("notified", 1),
        ("result-only", 2),
        ("unverified", 3),
        ("notified", 1),
    ):
        tally.result(result_of(task_uuid, offset))
    tally.callback(callback_of("notified", 103.0))
    tally.callback(callback_of("notified", 104.0))
    tally.callback(callback_of("unverified", 105.0, answered=401))

    facts = tally.facts()

    assert tally.open == ["result-only", "lost", "unverified"]
    assert {name: facts[name] for name in ("sent", "results", "callbacks", "failed", "lost")} == {
        "sent": 4,
        "results": 3,
        "callbacks": 1,
        "failed": 3,
        "lost": 3,
    }
    assert (facts["duplicated"], facts["unverified"]) == (2, 1)
    assert facts["result_seconds"] == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert facts["callback_seconds"]["max"] == 3.0
    assert facts["rate_per_second"] == 0.2


def test_percentiles_are_measured_values():
    assert latencies([]) is None
    assert latencies([*range(1, 101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100}
