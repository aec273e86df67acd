"""The receivers of docs/receiving-callbacks.md, as programs: real callbacks are taken, forged ones
are not.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from common.callback import Callbacks, webhook_id
from common.errors import CallbackFailed
from common.messages import Link
from tests.fixtures_edges import make_outcome
from tests.marked import CALLBACK_SECRET
from tests.pipeline.services import bare_environ

OTHER_SECRET = "whsec_" + "QUJD" * 11
EXAMPLES = Path("examples/receivers").resolve()
#: What was fetched stays here between runs.
FETCHED = Path("data/receivers").resolve()
DOCUMENT = Path("docs/receiving-callbacks.md").read_text(encoding="utf-8")


def python(_folder):
    return [sys.executable, str(EXAMPLES / "python" / "receiver.py")]


def node(_folder):
    """Fetch the package that the lock names, once for each lock."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    source = EXAMPLES / "node"
    lock = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    fetched = FETCHED / f"node-{lock}"
    if not (fetched / "node_modules" / "standardwebhooks").exists():
        fetched.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, fetched)
        ran([shutil.which("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"], fetched)
    shutil.copy(source / "receiver.mjs", fetched)
    return ["node", str(fetched / "receiver.mjs")]


def go(folder):
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    ran(["go", "build", "-mod=readonly", "-o", str(folder / "receiver"), "."], EXAMPLES / "go")
    return [str(folder / "receiver")]


def ran(command, folder):
    """Run what may need a registry."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"{' '.join(command[:2])} cannot fetch or build: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module", params=[python, node, go], ids=lambda make: make.__name__)
def receiver(request, tmp_path_factory):
    """Run an example; return its address and what has printed so far."""
    folder = tmp_path_factory.mktemp("receiver")
    command = request.param(folder)
    log = folder / "log"
    with log.open("wb") as output, (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*command, "0"],
            env={**bare_environ(), "CALLBACK_SECRET": CALLBACK_SECRET},
            stdout=output,
            stderr=errors,
        )
    deadline = time.monotonic() + 30
    while not (found := re.search(r"Listening at (\S+)\n", log.read_text())):
        assert process.poll() is None, (folder / "errors").read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    yield found[1], log
    process.terminate()
    process.wait(10)


def send(network, receiver, outcome, *secrets, age_seconds=0):
    callbacks = Callbacks(network, secrets, 15, now=lambda: time.time() - age_seconds)
    callbacks.send(
        f"{receiver[0]}/hook", outcome, lambda key: Link(url=f"https://s3.example/{key}?signed")
    )


def test_a_signed_callback_is_taken_and_worked_once(network, receiver):
    succeeded, failed = make_outcome("taken"), make_outcome("not-made", failed=True)

    for outcome in (succeeded, succeeded, failed):
        send(network, receiver, outcome, CALLBACK_SECRET)

    assert webhook_id(succeeded) != webhook_id(failed)
    assert receiver[1].read_text().splitlines()[1:] == [
        "taken vocals: https://s3.example/taken/vocals.flac?signed",
        "not-made failed: download_failed",
    ]


def test_a_callback_signed_with_the_old_and_the_new_secret_is_taken(network, receiver):
    send(network, receiver, make_outcome("rotated"), OTHER_SECRET, CALLBACK_SECRET)

    assert "rotated vocals:" in receiver[1].read_text()


@pytest.mark.parametrize(
    ("secrets", "age_seconds"),
    [((OTHER_SECRET,), 0), ((), 0), ((CALLBACK_SECRET,), 3600)],
    ids=["another secret", "no signature", "an hour old"],
)
def test_a_forged_callback_is_refused_and_nothing_is_done(network, receiver, secrets, age_seconds):
    with pytest.raises(CallbackFailed, match="answered 401"):
        send(network, receiver, make_outcome("forged"), *secrets, age_seconds=age_seconds)

    assert "forged" not in receiver[1].read_text()


def test_a_body_too_large_is_not_read_to_its_end(receiver):
    answered = None
    try:
        urllib.request.urlopen(f"{receiver[0]}/hook", data=b"x" * 8_000_000, timeout=10)
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
    assert required in Path("requirements/dev.in").read_text().splitlines()


@pytest.mark.skipif(
    os.name == "nt" or shutil.which("gofmt") is None, reason="gofmt is not installed"
)
def test_the_go_program_is_formatted():
    assert (
        subprocess.run(["gofmt", "-l", str(EXAMPLES)], capture_output=True, text=True).stdout == ""
    )
