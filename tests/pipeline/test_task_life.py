"""Where a task shows: its last report, and the programs of docs/task-life.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pipeline.services import until

PAGE = Path("docs/task-life.md").read_text(encoding="utf-8")
STAGES = ["download", "separate", "upload", "callback"]
FOLLOW, POLL = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def reports_of(pipeline, task_uuid):
    records = pipeline.records(f"{pipeline.name}_progress")
    return [json.loads(record.value) for record in records if record.key == task_uuid.encode()]


def until_ended(pipeline, task_uuid):
    """Wait for a report with a status; return all reports."""
    return until(
        lambda: (found := reports_of(pipeline, task_uuid)) and "status" in found[-1] and found,
        f"the last report of {task_uuid}",
    )


def test_the_last_report_of_every_order_says_how_it_ended(running, shared_world):
    pipeline, song = running, shared_world.url("/song.wav")
    gate = shared_world.gated("/first.wav")
    pipeline.order(shared_world.url("/first.wav"))
    shared_world.until_asked("/first.wav")
    cancelled = pipeline.order(song)
    pipeline.cancel(cancelled)
    gate.set()
    delivered = pipeline.order(song, callback_url=shared_world.url("/hook"))
    silent = pipeline.order(song)
    absent = pipeline.order(shared_world.url("/absent.wav"))
    invalid = pipeline.order(song, output_format="aiff")
    expected = {delivered: "succeeded", silent: "succeeded"}
    expected |= dict.fromkeys((cancelled, absent, invalid), "failed")

    for task_uuid, status in expected.items():
        reports = until_ended(pipeline, task_uuid)

        assert pipeline.current_outcome(task_uuid)["status"] == status
        last = reports[-1]
        assert (last["stage"], last["percent"], last["status"]) == ("callback", 100, status) or (
            task_uuid == delivered
        )
        for report in reports:
            assert report.get("status") == (status if report["stage"] == "callback" else None)


def test_reports_of_both_services_come_in_the_order_of_the_stages(running, shared_world):
    gate = shared_world.gated("/held.wav")
    running.order(shared_world.url("/held.wav"))
    shared_world.until_asked("/held.wav")
    orders = [
        running.order(shared_world.url("/song.wav" if number % 2 else "/absent.wav"))
        for number in range(20)
    ]
    gate.set()
    until_ended(running, orders[-1])
    running.until_no_lag()

    for task_uuid in orders:
        stages = [report["stage"] for report in reports_of(running, task_uuid)]
        assert stages == sorted(stages, key=STAGES.index)
        assert stages[-1] == "callback"


def test_attempts_at_a_callback_go_on_saying_how_the_order_ended(pipeline, world):
    world.answers["/down"] = 503
    pipeline.started("processor", "uploader", CALLBACK_RETRY_DELAYS_SECONDS="1")
    task_uuid = pipeline.order(world.url("/absent.wav"), callback_url=world.url("/down"))
    world.until_attempts("/down", 2)

    def both():
        found = [one for one in reports_of(pipeline, task_uuid) if one["stage"] == "callback"]
        return found if len(found) >= 2 else None

    attempts = until(both, "both attempts")

    assert {(one["percent"], one["status"]) for one in attempts} == {(0, "failed")}


def test_the_programs_of_the_page_follow_a_task_and_read_its_outcome(running, shared_world):
    pipeline = running
    task_uuid = pipeline.order(shared_world.url("/song.wav"))
    pipeline.outcome(task_uuid)
    follow = FOLLOW.replace("localhost:9092", pipeline.kafka).replace("song-1", task_uuid)

    followed = python(pipeline, follow.replace("uvr_progress", f"{pipeline.name}_progress"))

    assert followed.splitlines()[0].split() == ["download", "0"]
    assert followed.splitlines()[-1].split() == ["callback", "100", "succeeded"]
    # Another order of the same id fails, beside the success.
    pipeline.order(shared_world.url("/absent.wav"), task_uuid=task_uuid)
    until(lambda: any(key.startswith("failed/") for key in pipeline.keys_of(task_uuid)), "failed/")
    results = [json.loads(record.value) for record in pipeline.records(pipeline.results)]
    origins = [result["origin"] for result in results if result["task_uuid"] == task_uuid]
    poll = POLL.replace('"uvr"', repr(pipeline.bucket))
    unknown = {**origins[0], "offset": 10**9}
    for origin in (*origins, unknown):
        poll += f"\nprint(json.dumps(outcome({task_uuid!r}, {origin!r})))"

    first, second, none = map(json.loads, python(pipeline, poll).splitlines())

    assert (first["status"], first["origin"]) == ("succeeded", origins[0])
    assert (second["status"], second["origin"]) == ("failed", origins[1])
    assert none is None


def python(pipeline, code):
    """Run a program as a reader of the page would, on this pipeline's servers."""
    s3 = pipeline.s3_server.environment
    environ = {**os.environ, **s3, "AWS_ENDPOINT_URL_S3": s3["S3_ENDPOINT_URL"]}
    return subprocess.check_output(
        [sys.executable, "-c", code], env=environ, text=True, timeout=120
    )
