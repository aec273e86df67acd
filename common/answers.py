"""Heads of HTTP answers, read within limits of our own, without the interim answers before them."""

from __future__ import annotations

import email.parser
import http.client
import io
import re
from typing import BinaryIO

from common.outages import Refused

#: Of one answer's headers, with those of the interim answers before it.
MAX_HEAD_LINES = 2000
MAX_HEAD_BYTES = 256 * 1024

#: The headers that say where the body ends and whether the connection does.
_FRAMING = ("Transfer-Encoding", "Content-Length", "Connection", "Keep-Alive", "Proxy-Connection")
_SPACE_BEFORE_COLON = re.compile(rb"^([!-9;-~]+)[ \t]+:")
_FIELD_OR_FOLDED = re.compile(rb"[!-9;-~]+:|[ \t]")


class Answer(http.client.HTTPResponse):
    """An answer as http.client frames it, with a head that http.client would not read.

    http.client skips 100 (Continue) alone of the interim answers, and its limits of 100 headers and
    64 KiB per line cannot be set per connection.
    """

    def begin(self) -> None:
        """Read the head of the final answer.

        Raises:
            Refused: it is larger than the limits.
        """
        stream = self.fp
        status_line, *fields = _final_head(stream)
        head = b"".join(fields).decode("latin-1")
        message = email.parser.Parser(_class=http.client.HTTPMessage).parsestr(head)
        framing = {name: message.get(name, "").strip() for name in _FRAMING}
        lines = [f"{name}: {value}\r\n" for name, value in framing.items() if value]
        framed = io.BytesIO(status_line + "".join(lines).encode("latin-1") + b"\r\n")
        self.fp = io.BufferedReader(framed)
        try:
            super().begin()
        finally:
            self.fp = stream
        self.headers = self.msg = message


def _final_head(stream: BinaryIO) -> list[bytes]:
    """Return the status line and the headers of the first answer that is not an interim one."""
    left_bytes, left_lines = MAX_HEAD_BYTES, MAX_HEAD_LINES
    head: list[bytes] = []
    while True:
        line = stream.readline(left_bytes + 1)
        left_bytes -= len(line)
        left_lines -= 1
        if left_bytes < 0 or left_lines < 0:
            raise Refused(
                "its server sent more than "
                f"{MAX_HEAD_LINES} headers or {MAX_HEAD_BYTES // 1024} KiB of them"
            )
        if not line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("the answer ended before its headers did")
        if not head:
            head.append(line)
            if not line.startswith(b"HTTP/"):
                return head
        elif line in {b"\r\n", b"\n"}:
            if not _is_interim(head[0]):
                return head
            head.clear()
        else:
            named = _SPACE_BEFORE_COLON.sub(rb"\1:", line)
            # Email's parser takes everything after a line that is neither for the body.
            if _FIELD_OR_FOLDED.match(named):
                head.append(named)


def _is_interim(status_line: bytes) -> bool:
    """Return whether another answer follows: 1xx, except 101, after which HTTP ends."""
    status = status_line.partition(b" ")[2].lstrip()
    return status.startswith(b"1") and not status.startswith(b"101")
