"""Everything on one machine is stopped and started again, as with scripts/kafka.py and s3.py."""

import urllib.request

from tests.pipeline.scripts import lines, run
from tests.pipeline.services import Pipeline
from tests.servers import free_port, s3proxy_server


def read(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def test_stems_outcome_trace_and_replay_outlive_a_restart_of_everything(own_kafka, world, tmp_path):
    folder, port = tmp_path / "s3", free_port()
    with s3proxy_server(folder, port) as server:
        pipeline = Pipeline(own_kafka, server, tmp_path)
        pipeline.started("processor", "uploader")
        task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
        callback = world.callback(task_uuid)
        outcome = pipeline.outcome(task_uuid)
        pipeline.until_no_lag()
        stems = {name: read(callback["data"][name]["url"]) for name in outcome["stems"]}
        pipeline.end()
    own_kafka.stop()

    kept = {
        name: folder / "objects" / pipeline.bucket / stem["key"]
        for name, stem in outcome["stems"].items()
    }
    assert {name: file.read_bytes() for name, file in kept.items()} == stems

    own_kafka.start()
    with s3proxy_server(folder, port):
        try:
            *_, traced = lines(pipeline, "trace.py", task_uuid)
            assert (traced["state"], traced["what"]) == (
                "succeeded",
                "succeeded; callback delivered",
            )
            assert pipeline.outcome(task_uuid) == outcome
            pipeline.started("uploader")
            replayed = run(pipeline, "callbacks.py", "replay", "--task", task_uuid, "--execute")
            assert replayed.returncode == 0, replayed.stdout + replayed.stderr
            first, second = world.until_attempts("/hook", 2)
            assert second.webhook_id == first.webhook_id
            again = world.callbacks_of(task_uuid)[1]["data"]
            assert {name: read(again[name]["url"]) for name in stems} == stems
        finally:
            pipeline.end()
