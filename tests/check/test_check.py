"""The command that runs the linters, and the figures that it prints."""

import subprocess
import sys

from tools.check import linters
from tools.check.figures import Figures

MODULE = """\
LIMIT, _OTHER = 1, 2
lower = 3


class Pair:
    def first(self):
        return _once()

    def second(self):
        return _twice() + _twice()


def _once():
    return LIMIT


def _twice():
    return _OTHER
"""


def test_every_linter_runs_and_those_that_fail_are_named(capfd):
    found = linters.run({"good": ("python", "-c", ""), "bad": ("python", "-c", "bad")})

    assert found == ["bad"]
    assert "NameError" in capfd.readouterr().out


def test_an_unreachable_advisory_database_is_not_a_failure(capfd):
    assert linters.run({linters.AUDIT: ("python", "-c", "raise OSError")}) == []
    assert "could not run" in capfd.readouterr().out

    found = "print('Found 1 known vulnerability in 1 package'); raise SystemExit(1)"
    assert linters.run({linters.AUDIT: ("python", "-c", found)}) == [linters.AUDIT]


def test_figures_count_constants_methods_and_helpers_used_once():
    figures = Figures()

    figures.add("module.py", MODULE)

    assert (figures.constants, figures.classes) == (2, {"module.py:Pair": 2})
    assert (figures.private_helpers, figures.used_once) == (2, 1)
    assert figures.functions == [2, 2, 2, 2]
    assert f"2 constants, {2000 / len(MODULE.splitlines()):.1f} per 1000 lines" in list(
        figures.describe()
    )


def test_the_command_prints_the_figures_of_each_part():
    done = subprocess.run(
        [sys.executable, "scripts/check.py", "--figures"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    parts = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert parts == ["product", "tools", "tests"]
