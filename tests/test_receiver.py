"""The receiver of callbacks reports correctly whether they verify."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.callback import Callbacks, webhook_id
from common.errors import CallbackFailed
from common.messages import Link
from tests.fixtures_edges import make_outcome
from tests.forgeries import FORGERIES, KINDS, PRIVATE, PUBLIC, request
from tools.callbacks.receiver import receiving

SECRET = "whsec_" + "c2VjcmV0" * 5
OTHER_SECRET = "whsec_" + "b3RoZXIh" * 5
ROOT = Path(__file__).parents[1]


def send(network, url, secrets=(SECRET,), **outcome):
    Callbacks(network, secrets, 30).send(
        url, make_outcome(**outcome), lambda key: Link(url=f"https://stems.example/{key}")
    )


def test_a_callback_with_our_signature_verifies(network):
    with receiving(secrets=[OTHER_SECRET, SECRET]) as receiver:
        send(network, receiver.url)
        received = receiver.wait_for("task-1", 30)

    assert received is not None
    assert received.verified
    assert received.webhook_id == webhook_id(make_outcome())
    assert received.payload["type"] == "uvr.task.succeeded"


@pytest.mark.parametrize("secrets", [(OTHER_SECRET,), ()])
def test_a_callback_without_our_signature_is_refused(network, secrets):
    with receiving(secrets=[SECRET]) as receiver:
        with pytest.raises(CallbackFailed, match="401"):
            send(network, receiver.url, secrets)
        assert receiver.wait_for("task-1", 0) is None
        assert [received.problem for received in receiver.received] != [None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_is_verified_with_the_key_of_a_receiver_and_a_forged_one_is_refused(kind):
    keys = KINDS[kind]
    with receiving(secrets=[keys.verifies]) as receiver:
        origin = receiver.url.removesuffix("/callback")
        for forge in FORGERIES.values():
            made = forge(keys, origin)
            receiver.receive(made.headers, made.body)
        made = request(keys.signs, origin)
        answered = receiver.receive(made.headers, made.body)

    assert answered == 200
    assert {
        name: received.answered
        for name, received in zip(FORGERIES, receiver.received, strict=False)
    } == dict.fromkeys(FORGERIES, 401)


def test_behind_another_address_the_audience_is_what_that_address_says():
    with receiving(secrets=[PUBLIC], audiences={"https://hooks.example"}) as receiver:
        mine = request(PRIVATE, "https://hooks.example")
        other = request(PRIVATE, receiver.url.removesuffix("/callback"))

        assert receiver.receive(mine.headers, mine.body) == 200
        assert receiver.receive(other.headers, other.body) == 401
    assert receiver.received[1].problem == (
        f"it is meant for {receiver.url.removesuffix('/callback')}, not for https://hooks.example"
    )


def test_attempts_of_one_callback_are_counted(network):
    answers = iter([500, 200])
    with receiving(secrets=[SECRET], answer=lambda: next(answers)) as receiver:
        with pytest.raises(CallbackFailed, match="500"):
            send(network, receiver.url)
        send(network, receiver.url)

    assert [(received.attempt, received.answered) for received in receiver.received] == [
        (1, 500),
        (2, 200),
    ]


@pytest.fixture
def script():
    """Return a function that starts `callbacks.py receive`; return it and its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "scripts/callbacks.py", "receive", "--port", "0", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CALLBACK_SECRET": SECRET, "PYTHONIOENCODING": "utf-8"},
        )
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"http://\S+/callback", line)
        assert match, line + process.stderr.read()
        return process, match.group()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_script_prints_a_json_line_for_each_callback(script, network):
    process, url = script("--format", "json")
    send(network, url)
    line = json.loads(process.stdout.readline())

    assert line["verified"]
    assert line["payload"]["data"]["task_uuid"] == "task-1"


def test_the_script_shows_each_callback_and_whether_it_verifies(script, network):
    process, url = script()
    send(network, url, failed=True)

    line = process.stdout.readline()
    assert "uvr.task.failed" in line
    assert "task-1" in line
    assert "verified" in line
    assert "download_failed" in process.stdout.readline()


def test_the_script_fails_on_demand(script, network):
    for arguments in (("--status", "418"), ("--fail-rate", "1")):
        _, url = script(*arguments)
        with pytest.raises(CallbackFailed, match=r"418|503"):
            send(network, url)


def test_the_script_verifies_with_the_public_key_alone(script, network):
    process, url = script("--format", "json", "--key", PUBLIC)
    send(network, url, [PRIVATE])
    with pytest.raises(CallbackFailed, match="401"):
        send(network, url)

    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [line["verified"] for line in lines] == [True, False]


def keygen(*arguments):
    command = [sys.executable, "scripts/callbacks.py", "keygen", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_script_makes_a_pair_of_keys_that_fit(network):
    private, public = keygen()
    with receiving(secrets=[public]) as receiver:
        send(network, receiver.url, [private])

    assert [private[:5], public[:5]] == ["whsk_", "whpk_"]
    assert keygen()[0] != private


def test_the_script_makes_a_shared_key(network):
    (shared,) = keygen("--hmac")
    with receiving(secrets=[shared]) as receiver:
        send(network, receiver.url, [shared])

    assert shared.startswith("whsec_")


@pytest.mark.parametrize(
    "arguments", [("--key", "whpk_AAAA"), ("--key", "hunter2"), ("--audience", "example.com")]
)
def test_the_script_refuses_keys_and_audiences_that_are_none(arguments):
    command = [sys.executable, "scripts/callbacks.py", "receive", "--port", "0", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert "hunter2" not in done.stderr
    assert "AAAA" not in done.stderr
