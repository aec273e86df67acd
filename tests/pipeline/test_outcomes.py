"""An order that fails leaves the success of another order of the same id as it is."""

from common.errors import InvalidTask
from tests.pipeline.scripts import lines, run
from tests.pipeline.services import until

#: An attacker knows an id, and nothing else.
INVALID = b'{"task_uuid": "%s", "callback_url": "%s"}'


def attack(pipeline, task_uuid, url):
    pipeline.send(INVALID % (task_uuid.encode(), url.encode()), task_uuid.encode())


def bodies(pipeline, task_uuid):
    """Return the objects of a task, by their names."""
    return {
        name: pipeline.s3.get_object(Bucket=pipeline.bucket, Key=f"{task_uuid}/{name}")[
            "Body"
        ].read()
        for name in pipeline.keys_of(task_uuid)
    }


def test_an_invalid_task_that_names_anothers_id_touches_nothing_of_it(running, shared_world):
    pipeline, world = running, shared_world
    victim = pipeline.order(world.url("/song.wav"), callback_url=world.url("/victim"))
    world.callback(victim)
    pipeline.until_no_lag()
    standing = bodies(pipeline, victim)
    assert standing.keys() == {"vocals.wav", "instrumental.wav", "result.json"}

    attack(pipeline, victim, world.url("/attacker"))
    (first,) = world.until_attempts("/attacker", 1)
    pipeline.until_no_lag()

    (key,) = pipeline.keys_of(victim) - standing.keys()
    assert key.startswith("failed/")
    found = bodies(pipeline, victim)
    assert InvalidTask.code.encode() in found.pop(key)
    assert found == standing
    assert len(world.attempts_at("/victim")) == 1

    done = run(pipeline, "trace.py", victim)
    assert f"s3:{victim}/{key}\toutcome beside the success of " in done.stdout
    assert "failed: invalid_task" in done.stdout.splitlines()[-1]
    assert "stay" in done.stdout.splitlines()[-1]

    rows = lines(pipeline, "callbacks.py", "replay", "--task", victim, "--execute")
    assert [(row["status"], row["action"]) for row in rows] == [
        ("succeeded", "replayed"),
        ("failed", "replayed"),
    ]
    assert world.until_attempts("/attacker", 2)[1].webhook_id == first.webhook_id
    assert len({attempt.webhook_id for attempt in world.until_attempts("/victim", 2)}) == 1
    pipeline.until_no_lag()
    assert bodies(pipeline, victim).keys() == {*standing, key}

    pipeline.order(world.url("/song.wav"), task_uuid=victim, output_format="flac")
    until(lambda: "vocals.flac" in pipeline.keys_of(victim), "the next order")
    pipeline.until_no_lag()
    names = {"vocals.flac", "instrumental.flac", "result.json", key}
    assert pipeline.keys_of(victim) == names


def test_kill_9_after_a_failure_beside_a_success_repeats_its_callback_from_its_own_outcome(
    pipeline, world
):
    pipeline.started("processor")
    uploader = pipeline.started("uploader")
    victim = pipeline.order(world.url("/song.wav"), callback_url=world.url("/victim"))
    world.callback(victim)
    gate = world.gate_hook("/attacker")
    attack(pipeline, victim, world.url("/attacker"))
    world.until_asked("/attacker")
    before = bodies(pipeline, victim)
    assert len(before) == 4

    uploader.kill()
    gate.set()
    pipeline.start("uploader")

    ids = {attempt.webhook_id for attempt in world.until_attempts("/attacker", 2)}
    pipeline.until_no_lag()
    assert len(ids) == 1
    assert bodies(pipeline, victim) == before
