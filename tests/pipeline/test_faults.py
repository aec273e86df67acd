"""Signals, kills, long work and lost partitions, and what becomes of the task."""

import signal

import pytest

from tests.pipeline.services import until


def test_sigterm_during_a_task_finishes_and_commits_it(pipeline, world):
    gate = world.gated("/held.wav")
    processor = pipeline.started("processor")
    task_uuid = pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")

    processor.signal(signal.SIGTERM)
    gate.set()

    assert processor.exit_code() == 0
    processor.until_logged(f"{task_uuid} Offset committed successfully")
    processor.until_logged("Shutdown complete")
    assert pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0
    assert len(pipeline.records(pipeline.results)) == 1


def test_a_file_stops_a_service_as_a_signal_does(pipeline):
    processor = pipeline.started("processor")

    stop = pipeline.folder / "data" / "run" / "processor.stop"
    stop.parent.mkdir(parents=True, exist_ok=True)
    stop.touch()

    assert processor.exit_code() == 0


def test_a_second_signal_stops_at_once_and_does_not_count_as_an_attempt(pipeline, world):
    gate = world.gated("/held.wav")
    processor = pipeline.started("processor", KAFKA_GROUP_INSTANCE_ID="one")
    pipeline.started("uploader")
    task_uuid = pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")

    processor.signal(signal.SIGTERM)
    processor.until_logged("Stopping after the task in hand")
    processor.signal(signal.SIGTERM)

    assert processor.exit_code() == 128 + signal.SIGTERM
    assert pipeline.records(pipeline.results) == []
    again = pipeline.start("processor", KAFKA_GROUP_INSTANCE_ID="one")
    gate.set()
    again.until_logged(f"{task_uuid} Received task .*attempt 1")
    assert pipeline.outcome(task_uuid)["status"] == "succeeded"


def test_kill_9_during_a_task_redelivers_it_and_its_outcome_is_complete_and_single(pipeline, world):
    gate = world.gated("/held.wav")
    first = pipeline.started("processor")
    pipeline.started("uploader")
    task_uuid = pipeline.order(world.url("/held.wav"), callback_url=world.url("/hook"))
    world.until_asked("/held.wav")

    first.kill()
    second = pipeline.start("processor")
    gate.set()

    second.until_logged(f"{task_uuid} Received task .*attempt 2")
    assert world.callback(task_uuid)["type"] == "uvr.task.succeeded"
    assert pipeline.keys() == {
        f"{task_uuid}/{name}" for name in ("vocals.wav", "instrumental.wav", "result.json")
    }
    pipeline.until_no_lag()
    assert len(world.callbacks_of(task_uuid)) == 1
    # The next process removed at its start what the killed one left.
    work = pipeline.folder / "data" / "work"
    until(lambda: not [path for path in work.rglob("*") if path.is_file()], "an empty work folder")


def test_kill_9_of_an_uploader_repeats_the_callback_under_the_same_id(pipeline, world):
    pipeline.started("processor")
    first = pipeline.started("uploader")
    gate = world.gate_hook("/hook")
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    world.until_asked("/hook")
    written = pipeline.outcome(task_uuid)

    first.kill()
    gate.set()
    pipeline.start("uploader")

    until(lambda: len(world.callbacks_of(task_uuid)) == 2, "the callback again")
    pipeline.until_no_lag()
    assert len({callback["id"] for callback in world.callbacks_of(task_uuid)}) == 1
    assert pipeline.current_outcome(task_uuid) == written


def test_a_task_that_kills_its_process_too_often_ends_as_worker_lost_and_the_partition_moves_on(
    pipeline, world
):
    world.gated("/deadly.wav")
    pipeline.started("uploader")
    pipeline.started("processor").end()  # it makes the topics
    deadly = pipeline.order(world.url("/deadly.wav"), callback_url=world.url("/hook"))

    def processor():
        # A static member gets its partitions back without waiting for the killed one's session.
        return pipeline.start("processor", KAFKA_GROUP_INSTANCE_ID="one", TASK_MAX_ATTEMPTS="2")

    for attempt in (1, 2):
        victim = processor()
        victim.until_logged(f"{deadly} Received task .*attempt {attempt}")
        victim.kill()
    survivor = processor()

    assert world.callback(deadly)["data"]["error"]["code"] == "worker_lost"
    good = pipeline.order(world.url("/song.wav"))
    assert pipeline.outcome(good)["status"] == "succeeded"
    survivor.until_logged(f"{deadly} Offset committed despite error")
    (letter,) = pipeline.records(f"{pipeline.tasks}_dlq")
    assert dict(letter.headers)["uvr_dlq-reason"] == b"worker_lost"


def test_a_result_that_kills_its_uploader_too_often_is_set_aside_and_still_answered(
    pipeline, world
):
    pipeline.started("processor")
    gate = world.gate_hook("/hook")
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    for attempt in (1, 2):
        victim = pipeline.start("uploader", KAFKA_GROUP_INSTANCE_ID="one", TASK_MAX_ATTEMPTS="2")
        world.until_asked("/hook", attempt)
        victim.kill()
    gate.set()

    pipeline.start("uploader", KAFKA_GROUP_INSTANCE_ID="one", TASK_MAX_ATTEMPTS="2")

    pipeline.until_no_lag()
    (letter,) = pipeline.records(f"{pipeline.results}_dlq")
    assert dict(letter.headers)["uvr_dlq-reason"] == b"worker_lost"
    # The outcome was in S3 before the first kill; every callback reports it.
    assert {callback["type"] for callback in world.callbacks_of(task_uuid)} == {
        "uvr.task.succeeded"
    }
    assert pipeline.current_outcome(task_uuid)["status"] == "succeeded"


def test_a_task_three_times_as_long_as_the_poll_interval_is_done_once(pipeline, world):
    interval_seconds = 2.0
    world.delays["/slow.wav"] = 3 * interval_seconds
    world.files["/slow.wav"] = world.files["/song.wav"]
    processor = pipeline.started(
        "processor", PROCESSOR_MAX_POLL_INTERVAL_MS=str(int(interval_seconds * 1000))
    )

    task_uuid = pipeline.order(world.url("/slow.wav"))

    processor.until_logged(f"{task_uuid} Offset committed successfully")
    assert world.asked.count("/slow.wav") == 1
    assert len(pipeline.records(pipeline.results)) == 1


def test_a_second_process_gets_work_while_the_first_is_busy(pipeline, world):
    pipeline.partitions = 2
    gate = world.gated("/held.wav")
    first = pipeline.started("processor")
    held = pipeline.order(world.url("/held.wav"), partition=0)
    world.until_asked("/held.wav")
    waiting = [pipeline.order(world.url("/song.wav"), partition=1) for _ in range(3)]

    second = pipeline.started("processor")

    second.until_logged(f"({'|'.join(waiting)}) Received task")
    joined, received = second.moment_of("Processor started"), second.moment_of("Received task")
    print(f"first task {received - joined:.2f} s after joining")
    assert held not in second.log
    assert "Offset committed" not in first.log
    gate.set()
    first.until_logged(f"{held} Offset committed successfully")
    assert world.asked.count("/held.wav") == 1
    assert received - joined < 3


@pytest.mark.parametrize("service", ["processor", "uploader"])
def test_a_broker_that_dies_during_a_task_is_waited_for(own_pipeline, world, service):
    pipeline = own_pipeline
    pipeline.started("processor", "uploader")
    processor, uploader = pipeline.processes
    gate = world.gated("/held.wav") if service == "processor" else world.gate_hook("/hook")
    source = "/held.wav" if service == "processor" else "/song.wav"
    task_uuid = pipeline.order(world.url(source), callback_url=world.url("/hook"))
    world.until_asked("/held.wav" if service == "processor" else "/hook")

    pipeline.broker.kill()
    gate.set()
    pipeline.broker.start()

    (processor if service == "processor" else uploader).until_logged(
        f"{task_uuid} Offset committed successfully"
    )
    assert world.callback(task_uuid)["type"] == "uvr.task.succeeded"
    assert pipeline.outcome(task_uuid)["status"] == "succeeded"
