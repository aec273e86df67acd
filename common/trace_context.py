"""W3C Trace Context: the trace that a record or a request belongs to, in its headers.

Anybody can write a record's headers. What is not valid by the specification is ignored, so nothing
but the characters of a valid `traceparent` and `tracestate` ever reaches a request or a log line.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
#: What must be propagated of a tracestate; a longer one loses entries.
MAX_STATE_CHARACTERS = 512
MAX_STATE_ENTRIES = 32
#: Entries longer than this are the first that a long tracestate loses.
LONG_ENTRY_CHARACTERS = 128
#: The flags `sampled` and `random`; the others are reserved and must be zero.
KNOWN_FLAGS = 0x03

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ENTRY = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True)
class TraceContext:
    """A span of a trace, by its ids in lower-case hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @classmethod
    def read(cls, headers: Iterable[tuple[str, bytes]]) -> TraceContext | None:
        """Return what a record's *headers* say; None without exactly one valid `traceparent`."""
        named = [(name.lower(), value) for name, value in headers]
        parents = [value for name, value in named if name == TRACEPARENT]
        if len(parents) != 1:
            return None
        match = _PARENT.fullmatch(parents[0])
        if match is None:
            return None
        version, trace_id, span_id, flags = (part.decode() for part in match.groups()[:4])
        # A later version may add fields; version ff is forbidden.
        if version == "ff" or (version == "00" and match[5] is not None):
            return None
        if not int(trace_id, 16) or not int(span_id, 16):
            return None
        state = _state(value for name, value in named if name == TRACESTATE)
        return cls(trace_id, span_id, int(flags, 16) & KNOWN_FLAGS, state)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry it on, for HTTP."""
        parent = {TRACEPARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        return {**parent, TRACESTATE: self.state} if self.state else parent

    @property
    def record_headers(self) -> list[tuple[str, bytes]]:
        """The same headers as a record has them."""
        return [(name, text.encode()) for name, text in self.headers.items()]

    def child(self) -> TraceContext:
        """Return a new span of the same trace."""
        return replace(self, span_id=secrets.token_hex(8))


def _state(values: Iterable[bytes]) -> str:
    """Return the entries of all tracestate headers, in order; nothing if one of them is invalid."""
    try:
        entries = [entry.strip(" \t") for entry in b",".join(values).decode("ascii").split(",")]
    except UnicodeDecodeError:
        return ""
    entries = [entry for entry in entries if entry]
    keys = {entry.partition("=")[0] for entry in entries}
    if len(entries) > MAX_STATE_ENTRIES or len(keys) < len(entries):
        return ""
    if not all(map(_ENTRY.fullmatch, entries)):
        return ""
    while len(",".join(entries)) > MAX_STATE_CHARACTERS:
        long = [at for at, entry in enumerate(entries) if len(entry) > LONG_ENTRY_CHARACTERS]
        del entries[long[-1] if long else -1]
    return ",".join(entries)
