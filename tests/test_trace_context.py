"""What strangers write into `traceparent` and `tracestate` is valid, or ignored."""

import pytest

from common.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def read(*headers):
    return TraceContext.read(
        (name, value if isinstance(value, bytes) else value.encode()) for name, value in headers
    )


def state_of(*values):
    context = read(("traceparent", GOOD), *(("tracestate", value) for value in values))
    assert context is not None
    return context.state


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_a_valid_traceparent_is_carried_on_as_it_is(name):
    context = read(("other", b"\xff"), (name, GOOD), ("tracestate", "vendor=1"))

    assert context == TraceContext(TRACE, SPAN, 1, "vendor=1")
    assert context.headers == {"traceparent": GOOD, "tracestate": "vendor=1"}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        GOOD.upper(),
        GOOD + "\n",
        GOOD + "\r\nX-Injected: 1",
        " " + GOOD,
        GOOD + "-extra",
        GOOD[:-1],
        GOOD + "0",
        GOOD.replace("-", "_"),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-٠١",
        b"\x00" * 55,
        b"\xff" * 55,
        "1" * 1_000_000,
    ],
    ids=lambda bad: repr(bad[:70]),
)
def test_a_bad_traceparent_is_no_trace(bad):
    assert read(("traceparent", bad), ("tracestate", "vendor=1")) is None


def test_two_traceparents_are_no_trace_even_if_they_are_alike():
    assert read(("traceparent", GOOD), ("traceparent", GOOD)) is None
    assert read(("traceparent", GOOD), ("TraceParent", "x")) is None
    assert read() is None
    assert read(("tracestate", "vendor=1")) is None


@pytest.mark.parametrize("end", ["", "-", "-what-the-future-holds\r\n\xff"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_written_in_ours(end):
    context = read(("traceparent", f"cc-{TRACE}-{SPAN}-ff{end}"))

    assert context is not None
    assert context.headers == {"traceparent": f"00-{TRACE}-{SPAN}-03"}


def test_flags_that_are_reserved_are_not_passed_on():
    context = read(("traceparent", f"00-{TRACE}-{SPAN}-fd"))

    assert context is not None
    assert context.headers["traceparent"].endswith("-01")


def test_a_child_is_another_span_of_the_same_trace():
    parent = TraceContext(TRACE, SPAN, 1, "vendor=1")
    child = parent.child()

    assert (child.trace_id, child.flags, child.state) == (TRACE, 1, "vendor=1")
    assert child.span_id != SPAN
    assert read(*child.headers.items()) == child


@pytest.mark.parametrize(
    ("values", "state"),
    [
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=1 , \t b=2,,"], "a=1,b=2"),
        (["tenant@system=x,0t@s=y,a/b*c-d_e=~"], "tenant@system=x,0t@s=y,a/b*c-d_e=~"),
        ([], ""),
        (["", " "], ""),
        (["a=1,a=2"], ""),
        (["a=1", "A=2"], ""),
        (["a"], ""),
        (["a="], ""),
        (["=1"], ""),
        (["0a=1"], ""),
        (["a@b@c=1"], ""),
        (["a=1=2"], ""),
        (["a=1\r\nX-Injected: 1"], ""),
        (["a=\x7f"], ""),
        ([b"a=\xff"], ""),
        ([f"{'k' * 256}=1"], f"{'k' * 256}=1"),
        ([f"{'k' * 257}=1"], ""),
        ([f"a={'v' * 256}"], f"a={'v' * 256}"),
        ([f"a={'v' * 257}"], ""),
        ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
    ],
)  # fmt: skip
def test_a_tracestate_is_valid_or_dropped_and_never_costs_the_trace(values, state):
    assert state_of(*values) == state


def test_a_long_tracestate_loses_its_longest_entries_first_and_then_the_last_ones():
    long, short = f"long={'v' * 200}", [f"k{n}={'v' * 96}" for n in range(6)]
    entries = [short[0], long, *short[1:]]

    kept = state_of(",".join(entries))

    assert kept.split(",") == short[:5]
    assert len(kept) <= 512
