"""Secrets appear in no output; tests/conftest.py also scans everything that a test run wrote."""

import json
import urllib.request

from tests.marked import MARK, found_in_dead_letters, found_in_logs
from tests.servers import free_port


def test_what_a_task_carries_in_secret_is_in_no_outcome_progress_callback_header_or_metric(
    pipeline, world
):
    port = free_port()
    pipeline.started("processor", METRICS_PORT=str(port), LOG_LEVEL="TRACE")
    uploader = pipeline.started("uploader", LOG_LEVEL="TRACE", CALLBACK_RETRY_DELAYS_SECONDS="")
    secretive = {
        audio: f"http://user:{MARK}@127.0.0.1:{world.server_address[1]}/{audio}?token={MARK}"
        for audio in ("song.wav", "text.mp3", "missing.wav")
    }
    hook = f"/hook?token={MARK}"
    world.files[f"/song.wav?token={MARK}"] = world.files["/song.wav"]
    world.files[f"/text.mp3?token={MARK}"] = world.files["/text.mp3"]
    world.answers["/gone?token=" + MARK] = 410

    orders = [pipeline.order(url, callback_url=world.url(hook)) for url in secretive.values()]
    gone = pipeline.order(world.url("/song.wav"), callback_url=world.url("/gone?token=" + MARK))
    broken = pipeline.order(
        f"ftp://user:{MARK}@example.org/{MARK}", callback_url=world.url(hook), task_uuid="broken"
    )

    for task_uuid in (*orders, broken):
        world.callback(task_uuid)
    uploader.until_logged(f"{gone} Offset committed")
    outcomes = json.dumps([pipeline.outcome(task_uuid) for task_uuid in (*orders, gone, broken)])
    progress = repr(
        [(record.key, record.value) for record in pipeline.records(f"{pipeline.name}_progress")]
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert [MARK in text for text in (outcomes, progress, metrics)] == [False] * 3
    assert len(pipeline.records(f"{pipeline.results}_callback_dlq")) == 1
    assert found_in_dead_letters(pipeline.kafka) == []
    assert found_in_logs(pipeline.folder) == []


def test_the_scan_itself_finds_what_it_looks_for(tmp_path):
    log = tmp_path / "processor-1.stderr"
    log.write_text(f"INFO a presigned URL: ?X-Amz-Signature=1\nINFO {MARK}\n")
    found = found_in_logs(tmp_path)
    log.unlink()  # the scan after all tests would find it, too
    assert len(found) == 2
