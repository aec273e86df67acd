"""The null test: vocals + instrumental is the source, whatever the source is (all of it:
benchmarks/null_test.py).
"""

from __future__ import annotations

import pytest

from benchmarks import null_test
from benchmarks.null_test import Case, measure
from tests import separators, sounds

SHORT = list(null_test.cases([0.0, 0.25]))
LONG = [
    Case(44100, 16, 2, 1.0, 30.0, "wav"),
    Case(48000, 24, 2, 0.05, 30.0, "flac"),
    Case(96000, 0, 1, 1.5, 30.0, "wav"),
    Case(44100, 0, 2, 1.5, 30.0, "flac"),
]
#: The engine that works at a rate of its own, with a net of real shape.
MDX = [case for case in null_test.cases([0.0, 1.0]) if case.peak == 0.5 and case.bits != 16]


@pytest.mark.parametrize("case", [*SHORT, *LONG], ids=str)
def test_stems_add_up_to_the_source(separator, tmp_path, case):
    assert measure(separator, case, tmp_path).faults == []


@pytest.mark.parametrize("case", MDX, ids=str)
def test_stems_of_a_net_add_up_to_the_source(mdx_separator, tmp_path, case):
    result = measure(mdx_separator, case, tmp_path)

    assert (result.faults, result.receipt.engine) == ([], "mdx")


@pytest.mark.parametrize("case", MDX, ids=str)
def test_stems_of_spleeters_nets_add_up_to_the_source(spleeter_separator, tmp_path, case):
    result = measure(spleeter_separator, case, tmp_path)

    assert (result.faults, result.receipt.engine) == ([], "spleeter")


@pytest.mark.parametrize("output_format", ["wav", "flac"])
@pytest.mark.parametrize("peak", [1e-300, 1e-40, 1e-20])
def test_what_is_too_quiet_for_an_engine_is_still_the_source(
    separator, tmp_path, output_format, peak
):
    path = sounds.write_wav(tmp_path / "song.wav", sounds.song(1, peak=peak), 64)

    receipt = separators.separate(separator, path, tmp_path, output_format)

    assert (receipt.residual_db, receipt.gain) == (-200, 1)
