"""The command that runs the tests, on a test of one line."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("assertion", "code"), [("True", 0), ("False", 1)])
def test_it_hands_pytest_its_arguments_and_ends_with_its_exit_code(tmp_path, assertion, code):
    (tmp_path / "test_one.py").write_text(f"def test_one():\n    assert {assertion}\n")

    command = [
        sys.executable,
        "scripts/test.py",
        "-p",
        "no:cacheprovider",
        "-k",
        "one",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == code, done.stdout + done.stderr
    assert ("1 passed" if code == 0 else "1 failed") in done.stdout
