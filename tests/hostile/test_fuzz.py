"""A short run of scripts/fuzz.py with fixed seeds, and tests that it finds faults."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from scripts import fuzz
from tools.fuzz import Found, calls, campaign, examples, media, records, replies, urls

SHORT = {
    "records": (records.fuzz, 200),
    "urls": (urls.fuzz, 150),
    "media": (media.fuzz, 150),
    "replies": (replies.fuzz, 40),
    "calls": (calls.fuzz, 15),
}
#: Only Linux confines songs, each in a process of its own.
CONFINED = {"replies", "calls"}


@pytest.mark.parametrize("target", SHORT)
def test_no_generated_input_breaks_a_promise(target):
    if target in CONFINED and sys.platform != "linux":
        pytest.skip("only Linux confines songs")
    fuzz_target, count = SHORT[target]

    assert fuzz_target(1, count) >= count


def test_every_target_has_a_short_run():
    assert SHORT.keys() == campaign.TARGETS.keys()


def test_an_input_that_breaks_a_promise_is_found_and_shrunk():
    def no_nines(number):
        assert number < 999, "nine"

    with pytest.raises(Found, match="AssertionError: nine") as caught:
        examples.run(
            st.integers(0, 10**6), no_nines, lambda number: b"%d" % number, seed=1, count=500
        )
    assert caught.value.content == b"999"


def test_a_run_reports_saves_and_fails_on_what_it_found(tmp_path):
    def target(seed, count):
        if seed > 8:
            raise Found("it broke", b"input")
        return count

    found = campaign.run_target("records", target, 7, 60, tmp_path)

    assert (found.inputs, found.found) == (campaign.ROUND, "it broke")
    assert found.saved is not None
    assert Path(found.saved).read_bytes() == b"input"


def test_a_run_that_finds_nothing_succeeds(capsys):
    assert (
        fuzz.main(["--target", "records", "--minutes", "0.001", "--seed", "1", "--format", "json"])
        == 0
    )

    figures = json.loads(capsys.readouterr().out)
    assert (figures["target"], figures["seed"], figures["found"]) == ("records", 1, None)
    assert figures["inputs"] >= campaign.ROUND
