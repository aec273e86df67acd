"""The receivers of docs/receiving-callbacks.md, as programs: real callbacks are taken, forged ones
are not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.callback import Callbacks, webhook_id
from common.errors import CallbackFailed
from common.messages import Link
from tests.fixtures_edges import make_outcome
from tests.forgeries import FORGERIES, KINDS, OTHER_PRIVATE, OTHER_SECRET, request
from tests.pipeline.services import bare_environ
from tests.servers import free_port

EXAMPLES = Path("examples/receivers").resolve()
DOCUMENT = Path("docs/receiving-callbacks.md").read_text(encoding="utf-8")


def python(_folder):
    return [sys.executable, str(EXAMPLES / "python" / "receiver.py")]


def node(_folder):
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    return ["node", str(EXAMPLES / "node" / "receiver.mjs")]


def go(folder):
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    build = ["go", "build", "-o", str(folder / "receiver"), "."]
    done = subprocess.run(build, cwd=EXAMPLES / "go", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [str(folder / "receiver")]


@pytest.fixture(
    scope="module",
    params=[python, node, pytest.param(go, marks=pytest.mark.full)],
    ids=lambda make: make.__name__,
)
def program(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module", params=KINDS)
def receiver(request, program, tmp_path_factory):
    """Run an example with one kind of key; return its origin, its keys and its log."""
    keys = KINDS[request.param]
    folder, port = tmp_path_factory.mktemp("receiver"), free_port()
    origin = f"http://127.0.0.1:{port}"
    log = folder / "log"
    with log.open("wb") as output, (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*program, str(port)],
            env={**bare_environ(), "CALLBACK_KEY": keys.verifies, "CALLBACK_AUDIENCE": origin},
            stdout=output,
            stderr=errors,
        )
    deadline = time.monotonic() + 30
    while f"Listening at {origin}\n" not in log.read_text():
        assert process.poll() is None, (folder / "errors").read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    yield SimpleNamespace(origin=origin, keys=keys, log=log)
    process.terminate()
    process.wait(10)


def send(network, receiver, outcome, *secrets):
    Callbacks(network, secrets, 15).send(
        f"{receiver.origin}/hook",
        outcome,
        lambda key: Link(url=f"https://s3.example/{key}?signed"),
    )


def post(receiver, made):
    """Send the request *made* as it is; return the status of the answer."""
    headers = {
        name: value.encode("utf-8").decode("latin-1") for name, value in made.headers.items()
    }
    asked = urllib.request.Request(f"{receiver.origin}/hook", made.body, headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_signed_callback_is_taken_and_worked_once(network, receiver):
    succeeded, failed = make_outcome("taken"), make_outcome("not-made", failed=True)

    for outcome in (succeeded, succeeded, failed):
        send(network, receiver, outcome, receiver.keys.signs)

    assert webhook_id(succeeded) != webhook_id(failed)
    assert [
        line for line in receiver.log.read_text().splitlines() if "made" in line or "taken" in line
    ] == [
        "taken vocals: https://s3.example/taken/vocals.flac?signed",
        "taken instrumental: https://s3.example/taken/instrumental.flac?signed",
        "not-made failed: download_failed",
    ]


@pytest.mark.parametrize("name", ["vocals", "instrumental"])
def test_a_callback_with_one_stem_is_taken(network, receiver, name):
    send(network, receiver, make_outcome(f"one-{name}", stems=(name,)), receiver.keys.signs)

    log = receiver.log.read_text()
    assert [line for line in log.splitlines() if f"one-{name}" in line] == [
        f"one-{name} {name}: https://s3.example/one-{name}/{name}.flac?signed"
    ]


def test_while_keys_change_over_each_receiver_finds_its_own_signature(network, receiver):
    secrets = (OTHER_SECRET, OTHER_PRIVATE, *(keys.signs for keys in KINDS.values()))

    send(network, receiver, make_outcome("rotated"), *secrets)

    assert "rotated vocals:" in receiver.log.read_text()


def test_a_callback_without_a_signature_is_refused(network, receiver):
    with pytest.raises(CallbackFailed, match="answered 401"):
        send(network, receiver, make_outcome("unsigned"))

    assert "unsigned" not in receiver.log.read_text()


def test_a_forged_callback_is_refused_and_nothing_is_done(receiver):
    answers = {
        name: post(receiver, forge(receiver.keys, receiver.origin))
        for name, forge in FORGERIES.items()
    }

    assert answers == dict.fromkeys(FORGERIES, 401)
    assert "orged" not in receiver.log.read_text()


def test_what_the_forgeries_alter_is_taken_as_it_was(receiver):
    made = request(receiver.keys.signs, receiver.origin, task_uuid="unaltered")

    assert post(receiver, made) == 204
    assert "unaltered vocals:" in receiver.log.read_text()


def test_a_body_too_large_is_not_read_to_its_end(receiver):
    answered = None
    try:
        urllib.request.urlopen(f"{receiver.origin}/hook", data=b"x" * 8_000_000, timeout=10)
    except urllib.error.HTTPError as error:
        answered = error.code
        error.close()
    except OSError:  # hung up on while sending
        answered = 413

    assert answered == 413


def test_the_documents_programs_are_those_files():
    blocks = re.findall(r"<!-- (examples/\S+) -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)

    assert [Path(name).name for name, _ in blocks] == ["receiver.py", "receiver.mjs", "main.go"]
    for name, code in blocks:
        assert code == Path(name).read_text(encoding="utf-8"), name


def test_the_document_names_the_version_that_is_tested():
    required = (EXAMPLES / "python" / "requirements.txt").read_text().strip()

    assert f"`pip install {required}`" in DOCUMENT
    assert re.search(rf"^{required}\b", Path("requirements/services.in").read_text(), re.MULTILINE)


@pytest.mark.skipif(
    os.name == "nt" or shutil.which("gofmt") is None, reason="gofmt is not installed"
)
def test_the_go_program_is_formatted():
    assert (
        subprocess.run(["gofmt", "-l", str(EXAMPLES)], capture_output=True, text=True).stdout == ""
    )
