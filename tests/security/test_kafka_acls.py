"""The least rights in Kafka: the services and the operator's scripts need exactly these."""

import json
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.admin import ACLResourcePatternType as PatternType

from common.administration import administrator
from common.errors import Unreachable
from common.preparation import prepare_with
from config import Settings
from tests.operations.test_status_service import serving
from tests.pipeline import scripts
from tests.pipeline.services import until
from tools.local_kafka import acls

DOCUMENT = Path("docs/security-kafka.md")


def settings_of(pipeline, user, **environ):
    return Settings.from_environ({**pipeline.environ, **pipeline.key(user), **environ})


def prepared(pipeline, user):
    """Run the preparation of a service, before it joins its group."""
    settings = settings_of(pipeline, user)
    with administrator(settings.kafka, 10) as admin:
        prepare_with(admin, settings.topology, user)


def take_back(pipeline, right, operation):
    pattern = ResourcePatternFilter(
        ResourceType[right.kind.upper()], right.name, PatternType.LITERAL
    )
    wanted = ACLFilter(
        f"User:{right.user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern
    )
    with pipeline.broker.admin() as admin:
        assert admin.delete_acls([wanted])


def run_everything(pipeline, world, **environ):
    """Make the services use every topic in every way; return the task that succeeded."""
    delays = {"CALLBACK_RETRY_DELAYS_SECONDS": "0.1", **environ}
    pipeline.start("processor", **delays)
    pipeline.start("uploader", **delays).until_logged("Uploader started")
    pipeline.processes[0].until_logged("Processor started")
    world.answers["/hook/gone"], world.answers["/hook/down"] = 410, 503
    good = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    pipeline.order(world.url("/none.wav"), callback_url=world.url("/hook/gone"))
    pipeline.order(world.url("/none.wav"), callback_url=world.url("/hook/down"))
    pipeline.send(b"junk", key=b"k")
    pipeline.producer.send(pipeline.results, key=b"k", value=b"junk").get(30)
    assert pipeline.outcome(good)["status"] == "succeeded"
    assert world.callback(good)["type"] == "uvr.task.succeeded"
    for topic, count in (("tasks_dlq", 1), ("results_dlq", 1), ("results_callback_dlq", 2)):
        name = f"{pipeline.name}_{topic}"
        until(partial(holds, pipeline, name, count), f"{count} in {name}")
    assert pipeline.records(f"{pipeline.name}_results_callback_retry_1")
    assert pipeline.records(f"{pipeline.name}_progress")
    pipeline.until_no_lag()
    return good


def holds(pipeline, topic, count):
    return len(pipeline.records(topic)) >= count


def test_with_exactly_these_rights_everything_goes_through_and_the_services_make_their_topics(
    locked, world
):
    # The broker's minimum session is that of production, not of the other tests.
    sessions = {"KAFKA_SESSION_TIMEOUT_MS": "6000", "CALLBACK_RETRY_DELAYS_SECONDS": "0.1"}
    locked.give(locked.rights(**sessions))

    good = run_everything(locked, world, **sessions)

    assert not [process.log for process in locked.processes if "Authorization" in process.log]
    settings = {**locked.key("operator"), **sessions}
    redriven = scripts.run(locked, "dead_letters.py", "redrive", "--execute", **settings)
    replayed = scripts.run(
        locked, "callbacks.py", "replay", "--task", good, "--execute", **settings
    )
    traced = scripts.run(locked, "trace.py", good, "--format", "json", **settings)
    submitted = scripts.run(locked, "submit.py", world.url("/song.wav"), **settings)
    failed = scripts.run(locked, "failures.py", "list", **settings)
    retried = scripts.run(
        locked, "failures.py", "retry", "--code", "download_failed", "--execute", **settings
    )
    with serving(locked, **settings) as status:
        served, overview = status.json(f"/tasks/{good}"), status.json()
    assert "4 sent" in redriven.stderr
    assert "1 " in replayed.stderr, replayed.stderr
    assert replayed.returncode == 0
    assert (submitted.returncode, failed.returncode) == (0, 0), submitted.stderr + failed.stderr
    assert "2 sent" in retried.stderr, retried.stderr
    assert json.loads(traced.stdout.splitlines()[-1])["state"] == "succeeded"
    assert (served["state"], served["note"]) == ("succeeded", None)
    assert [group["members"] for group in overview["groups"]] == [1, 1]
    assert len(world.attempts_at("/hook")) > 1


def test_a_service_without_rights_ends_with_3_and_names_them_all(locked):
    processes = [
        locked.start(user, STARTUP_TIMEOUT_SECONDS="1") for user in ("processor", "uploader")
    ]

    assert [process.exit_code() for process in processes] == [3, 3]
    logged = {process.service: process.log.splitlines()[-1] for process in processes}
    # Only a user with the right to see a topic can know that it is missing.
    for right in locked.rights(KAFKA_CREATE_TOPICS="false"):
        for operation in right.operations if right.user in logged else ():
            assert f"{operation} on {right.kind} {right.name}" in logged[right.user]
    assert not [process.log for process in processes if "Traceback" in process.log]


@pytest.mark.parametrize("user", ["processor", "uploader"])
def test_each_right_that_is_missing_is_named_and_no_other(locked, user):
    locked.make_topics()
    fixed = [right for right in locked.rights(KAFKA_CREATE_TOPICS="false") if right.user == user]
    locked.give(fixed)
    until(partial(comes_through, locked, user), "all rights")

    for right in fixed:
        for operation in right.operations:
            take_back(locked, right, operation)
            until(
                partial(
                    refused_for, locked, user, f"lack {operation} on {right.kind} {right.name} ("
                ),
                "a refusal",
            )
            locked.give([right])
    until(partial(comes_through, locked, user), "everything given back")


def refused_for(pipeline, user, words):
    try:
        prepared(pipeline, user)
    except Unreachable as error:
        return words in str(error)
    return False


def comes_through(pipeline, user):
    try:
        prepared(pipeline, user)
    except Unreachable:
        return False
    return True


def test_rights_that_come_while_a_service_is_starting_are_in_time(locked):
    process = locked.start("uploader", KAFKA_SESSION_TIMEOUT_MS="6000")
    process.until_logged("Kafka is not ready for us")

    locked.give(locked.rights())

    process.until_logged("Uploader started")


def test_the_document_lists_exactly_these_rights():
    rows = re.findall(
        r"^\| (\w+) \| (topic|group) `(\w+)` \| ([\w, ]+) \|", DOCUMENT.read_text(), re.MULTILINE
    )
    rights = [right for right in acls.rights(Settings()) if right.user != "operator"]

    assert rows == [(right.user, right.kind, right.name, right.words) for right in rights]


def test_the_document_gives_the_commands_that_the_script_prints():
    text = DOCUMENT.read_text().replace("\\\n  ", "")

    for line in acls.commands(
        acls.rights(Settings()),
        "--bootstrap-server localhost:9092 --command-config admin.properties",
    ):
        assert line in text


def test_the_document_says_what_each_of_the_operators_scripts_needs():
    rows = dict(re.findall(r"^\| `([\w., ]+)` \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE))

    for script, rights in acls.operator(Settings()).items():
        names = defaultdict(list)
        for right in rights:
            names[right.words].append(f"`{right.name}`")
        assert rows[script] == "; ".join(
            f"{words}: {', '.join(named)}" for words, named in names.items()
        )
