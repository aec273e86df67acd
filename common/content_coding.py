"""Bodies that a server encoded although nobody asked for it: decoded to their end, or refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

from common.messages import printable
from common.outages import Outage, Refused

#: The most content that is decoded at a time, however small its encoded form.
PIECE_BYTES = 64 * 1024
#: How an object was sent to S3, which some services keep as if it were stored so.
_AWS_CHUNKED = "aws-chunked"


class Damaged(Outage):
    """Raised when an encoded body is damaged or cut short, perhaps on its way."""


def decoded(chunks: Iterator[bytes], content_encoding: str) -> Iterator[bytes]:
    """Return the content of a body that arrives in *chunks*.

    The iterator raises Damaged when the body is damaged or cut short, which only its own check sum
    and end show if the server announced no length.

    Raises:
        Refused: the encoding is none of those that servers are known to use unasked.
    """
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    match [coding for coding in codings if coding not in {"", "identity", _AWS_CHUNKED}]:
        case []:
            return chunks
        case ["gzip" | "x-gzip"]:
            return _gunzipped(chunks)
        case ["deflate"]:
            return _undeflated(chunks)
    raise Refused(
        f"its server sent it with Content-Encoding {printable(content_encoding)[:100]!r}, "
        "which was not asked for"
    )


def is_gzip(chunks: Iterator[bytes], content_encoding: str) -> tuple[bool, Iterator[bytes]]:
    """Tell whether a stored object is as it was compressed, and return its *chunks* again.

    An object's Content-Encoding says what its uploader wrote there: some services decompress it on
    the way out and say so all the same, and others keep names there that are no encodings.
    """
    start = next(chunks, b"")
    coding = content_encoding.lower().replace(_AWS_CHUNKED, "").strip(", ")
    return coding in {"gzip", "x-gzip"} and start.startswith(b"\x1f\x8b"), chain([start], chunks)


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of one gzip member or several; zeros may pad the last one."""
    inflater = None
    for chunk in chunks:
        data = chunk
        while data:
            if inflater is None:
                inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
            elif inflater.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
            yield from _inflated(inflater, data)
            data = inflater.unused_data
    if inflater is not None and not inflater.eof:
        raise Damaged("its gzip body was cut short")


def _undeflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of zlib's format, which RFC 9110 means, or of bare deflate."""
    start, inflater = b"", None
    for chunk in chunks:
        data = chunk
        if inflater is None:
            data = start = start + chunk
            if len(start) < 2:
                continue
            is_zlib = start[0] & 0x0F == 8 and int.from_bytes(start[:2]) % 31 == 0
            inflater = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        if inflater.eof:
            raise Damaged("its deflate body is damaged: bytes follow its end")
        yield from _inflated(inflater, data)
        if inflater.unused_data:
            raise Damaged("its deflate body is damaged: bytes follow its end")
    if start and (inflater is None or not inflater.eof):
        raise Damaged("its deflate body was cut short")


def _inflated(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    try:
        while content := inflater.decompress(data, PIECE_BYTES):
            yield content
            data = inflater.unconsumed_tail
    except zlib.error as error:
        raise Damaged("its encoded body is damaged") from error
