"""URLs that hypothesis generates, and the answers of the server behind them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.hostile import urls

SCHEMES = [
    "http://",
    "http://",
    "http://",
    "https://",
    "HTTP:",
    "http:/",
    "file://",
    "s3://",
    "//",
    "",
]
PATHS = ["/", "", "/a?b#c", "?", "#", "/%00", "/../..", "\\", ";"]
HOSTS = [
    "song.example",
    "SONG.example.",
    "localhost",
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0177.1",
    "2130706433",
    "0",
    "0.0.0.0",  # noqa: S104 -- a destination
    "169.254.169.254",
    "10.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%251]",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "1.1.1.1",
    "[2606:4700::1111]",
    "ß.example",
    "a..b",
    "xn--",
    "*",
    "",
    "[",
    "]",
]
PIECES = [
    "@",
    ":",
    "/",
    "//",
    "\\",
    "?",
    "#",
    "%",
    "%00",
    "%2f",
    "%0d%0a",
    "%25",
    "[",
    "]",
    ".",
    "..",
    " ",
    "\t",
    "\r\n",
    "\x00",
    "€",
    "\uff20",
    "。",
    "\u202e",
    "\u00ad",
    ":{port}",
    ":0",
    ":80",
    ":99999",
    "127.0.0.1",
    "song.example",
    "user:pass@",
    "http://",
    "https://",
    "file://",
]
HEADERS = [
    "Location",
    "Content-Length",
    "Transfer-Encoding",
    "Content-Encoding",
    "Retry-After",
    "Content-Type",
    "Set-Cookie",
    "Connection",
    "Refresh",
    "Content-Disposition",
    "Trailer",
    "",
    "X\x00",
]
#: Headers that the client acts on.
EFFECTIVE = [
    ("Location", "/again"),
    ("Location", "http://127.0.0.1:{port}/"),
    ("Location", "//[::1]:{port}/"),
    ("Location", "file:///etc/passwd"),
    ("Content-Length", "4"),
    ("Content-Length", "-1"),
    ("Content-Length", "4, 5"),
    ("Content-Length", "9" * 5000),
    ("Retry-After", "0"),
    ("Retry-After", "9" * 5000),
    ("Retry-After", "Sat, 21 Nov 99999999999 07:05:30 GMT"),
    ("Transfer-Encoding", "chunked"),
    ("Content-Encoding", "gzip"),
]
VALUES = [
    "",
    "0",
    "4",
    "-1",
    "9" * 40,
    "9" * 5000,
    "4, 4",
    "4, 5",
    "chunked",
    "gzip",
    "deflate, gzip",
    "zstd",
    "br",
    "identity",
    "x" * 70_000,
    "Sat, 21 Nov 2026 07:05:30 GMT",
    "Sat, 21 Nov 99999999 07:05:30 GMT",
    "Sat, 32 Foo 2026 25:61:61 +9999",
    "text/html; charset=\x00",
    "a=b; domain=.example; expires=Sat, 99 Foo 0",
    "close",
    "upgrade",
    "file:///etc/passwd",
    "http://song.example:{port}/",
    "http://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "/again",
    "?",
    "\xff\xfe",
]
BODIES = [
    b"",
    b"song",
    b"4\r\nsong\r\n0\r\n\r\n",
    b"-4\r\nsong",
    b"f" * 30 + b"\r\n",
    b"\x1f\x8b\x08\x00",
    b"\x28\xb5\x2f\xfd",
    b"x" * 5000,
]
STATUSES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 307 x",
    b"HTTP/1.1 503 x",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.0 204",
    b"HTTP/9.9 999 x",
    b"HTTP/1.1 -1 x",
    b"ICY 200 OK",
    b"HTTP/1.1 410 Gone",
    b"HTTP/1.1 101 x",
]


@dataclass(frozen=True)
class Exchange:
    """A hostile URL, and the answers of its server."""

    url: str
    answers: tuple[bytes, ...]
    through_proxy: bool


def inputs() -> st.SearchStrategy[Exchange]:
    """Return a strategy of URLs, from the corpus and composed, some of them mutated."""
    plain = "http://song.example:{port}/"
    url = st.one_of(st.sampled_from([url.url for url in urls.CORPUS]), _composed())
    answers = st.lists(_answers(), max_size=4).map(tuple)
    # The plain URL, so that answers are tested as often as URLs.
    return st.builds(
        Exchange, st.one_of(st.just(plain), url, url.flatmap(_mutated)), answers, st.booleans()
    )


@st.composite
def _composed(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(SCHEMES))
    user = draw(
        st.sampled_from(["", "", "", "me:secret@", "@", ":@", "€:€@", "%E2%82%AC:x@", "a@b@"])
    )
    port = draw(st.sampled_from([":{port}", ":{port}", ":{port}", "", ":0", ":-1", ":٣", ":"]))
    path = draw(st.one_of(st.sampled_from(PATHS), st.text(max_size=8)))
    return scheme + user + draw(st.one_of(st.sampled_from(HOSTS), _integers())) + port + path


def _integers() -> st.SearchStrategy[str]:
    """Return a strategy of IPv4 addresses in every spelling, often private ones."""
    forms: list[Callable[[int], str]] = [
        str,
        hex,
        lambda number: f"0{number:o}",
        lambda number: str(ipaddress.IPv4Address(number)),
        lambda number: f"[::ffff:{ipaddress.IPv4Address(number)}]",
        lambda number: f"[64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}]",
        lambda number: f"[{ipaddress.IPv6Address(number)}]",
    ]
    inside = st.sampled_from([0, 0x7F000001, 0x0A000001, 0xA9FEA9FE, 0xC0A80001, 0xA83F8110])
    numbers = st.one_of(inside, st.integers(0, 2**32 - 1))
    return st.builds(lambda form, number: form(number), st.sampled_from(forms), numbers)


@st.composite
def _mutated(draw: st.DrawFn, url: str) -> str:
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(url)))
        removed = draw(st.sampled_from([0, 0, 1, 2, 5]))
        url = (
            url[:at]
            + draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=2)))
            + url[at + removed :]
        )
    return url


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    lines = [draw(st.one_of(st.sampled_from(STATUSES[:4]), st.sampled_from(STATUSES)))]
    for _ in range(draw(st.integers(0, 4))):
        anything = st.tuples(
            st.sampled_from(HEADERS),
            st.one_of(st.sampled_from(VALUES), _composed(), st.text(max_size=10)),
        )
        name, value = draw(st.one_of(st.sampled_from(EFFECTIVE), anything))
        lines.append(f"{name}: {value}".encode("utf-8", "surrogatepass"))
    whole = b"\r\n".join([*lines, b"", draw(st.sampled_from(BODIES))])
    return draw(
        st.sampled_from(
            [whole, whole, whole, whole[: len(whole) // 2], whole.replace(b"\r\n", b"\n")]
        )
    )
