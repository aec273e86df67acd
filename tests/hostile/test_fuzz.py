"""The quick form of scripts/fuzz.py, with a few hundred fixed inputs; and that it finds bugs."""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from scripts import fuzz
from tools.fuzz import Found, examples, media, records, urls

QUICK = {"records": (records.fuzz, 200), "urls": (urls.fuzz, 150), "media": (media.fuzz, 150)}


@pytest.mark.parametrize("target", QUICK)
def test_nothing_made_up_breaks_a_promise(target):
    fuzz_target, count = QUICK[target]

    assert fuzz_target(1, count) >= count


def test_every_target_has_a_quick_form():
    assert QUICK.keys() == fuzz.TARGETS.keys()


def test_what_breaks_a_promise_is_found_and_made_small():
    def no_nines(number):
        assert number < 999, "nine"

    with pytest.raises(Found, match="AssertionError: nine") as caught:
        examples.run(
            st.integers(0, 10**6), no_nines, lambda number: b"%d" % number, seed=1, examples=500
        )
    assert caught.value.content == b"999"


def test_a_run_says_what_it_did_saves_what_it_found_and_fails(tmp_path):
    def target(seed, count):
        if seed > 8:
            raise Found("it broke", b"input")
        return count

    found = fuzz.run("records", target, 7, 60, tmp_path)

    assert (found.inputs, found.found) == (fuzz.EXAMPLES, "it broke")
    assert found.saved is not None
    assert Path(found.saved).read_bytes() == b"input"


def test_a_run_that_finds_nothing_ends_well(capsys):
    assert (
        fuzz.main(["--target", "records", "--minutes", "0.001", "--seed", "1", "--format", "json"])
        == 0
    )

    figures = json.loads(capsys.readouterr().out)
    assert (figures["target"], figures["seed"], figures["found"]) == ("records", 1, None)
    assert figures["inputs"] >= fuzz.EXAMPLES
