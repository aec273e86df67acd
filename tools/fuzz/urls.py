"""URLs and what answers them: nothing is connected to but what is allowed, and every error has a
code.

Names lead to a listener on the one address that is allowed; addresses lead where they say, and none
of those is. The listener answers with what was made up, redirects to made-up URLs among it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from common.addresses import is_public
from common.callback import Callbacks
from common.download import Downloader
from common.errors import TaskError
from common.messages import Task
from common.network import Network
from common.outages import Backoff
from tests.fixtures_edges import make_outcome
from tests.hostile import urls
from tools.fuzz import examples as made
from tools.fuzz.listener import Listener, Watch

ALLOWED = "127.0.0.1"
#: Where an address of this machine leads, so that only names lead to the listener.
INSIDE = "127.0.0.2"
#: The names that there are.
NAME = re.compile(r"(?i)(song|proxy)\.example\.?")
PLAIN = "http://song.example:{port}/"
MAX_BYTES = 1000
TIMEOUT_SECONDS = 0.5
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
PLACE = Path(_FOLDER.name)
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
    "0.0.0.0",  # noqa: S104 -- a place to go to
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
#: Headers that have something to say to us.
TELLING = [
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
class Scene:
    """A URL that a stranger names, and what he answers to those who come."""

    url: str
    answers: tuple[bytes, ...]
    through_proxy: bool


def fuzz(seed: int, examples: int) -> int:
    """Try so many URLs; see `tools.fuzz`."""
    return made.run(inputs(), check, _show, seed=seed, examples=examples)


def inputs() -> st.SearchStrategy[Scene]:
    """Return scenes of the corpus's URLs and of our own, as they are and with something changed."""
    url = st.one_of(st.sampled_from([url.url for url in urls.CORPUS]), _composed())
    answers = st.lists(_answers(), max_size=4).map(tuple)
    # The plain one, so that the answers are heard as often as the URLs are looked at.
    return st.builds(
        Scene, st.one_of(st.just(PLAIN), url, url.flatmap(_scratched)), answers, st.booleans()
    )


def check(scene: Scene) -> None:
    """Download from, and call back to, what *scene* says; raises what is no error of ours, or
    AssertionError.
    """
    for act in (_download, _call_back):
        with Listener(scene.answers) as listener:
            _act(act, scene, listener)


def _act(act: Callable[[str, Network], None], scene: Scene, listener: Listener) -> None:
    watch = _watch()
    proxy_url = f"http://proxy.example:{listener.port}" if scene.through_proxy else None
    network = Network([ipaddress.ip_network(ALLOWED)], resolver=_resolve, proxy_url=proxy_url)
    with watch.over_this_thread(), contextlib.suppress(TaskError):
        act(_filled(scene.url, listener), network)
    assert watch.forbidden == [], "a connection to where none may go"
    if scene.through_proxy:
        _check_named([*listener.requests])


def _download(url: str, network: Network) -> None:
    task = Task.decode(json.dumps({"task_uuid": "a", "audio_url": url}).encode())
    limits: dict[str, Any] = {
        "timeout_seconds": TIMEOUT_SECONDS,
        "max_bytes": MAX_BYTES,
        "backoff": Backoff(0, 0),
    }
    destination = PLACE / "source"
    destination.unlink(missing_ok=True)
    try:
        Downloader(network, **limits, input_dir=PLACE).fetch(
            task.audio_url, destination, progress=_check_percent, cancelled=threading.Event()
        )
    finally:
        assert not destination.exists() or destination.stat().st_size <= MAX_BYTES
        assert {path.name for path in PLACE.iterdir()} <= {"source"}


def _call_back(url: str, network: Network) -> None:
    task = Task.decode(
        json.dumps({"task_uuid": "a", "audio_url": "x", "callback_url": url}).encode()
    )
    Callbacks(network, [], TIMEOUT_SECONDS).send(
        task.callback_url or "", make_outcome(), lambda key: key
    )


def _check_percent(percent: int) -> None:
    assert 0 <= percent <= 100


def _check_named(requests: Sequence[bytes]) -> None:
    """Look at what a proxy was asked for: no address that leads inside."""
    for request in requests:
        named = re.match(rb"(?:CONNECT |[A-Z]+ http://)(\[[^\]]*\]|[^/:?# ]*)", request)
        assert named is not None, f"what a proxy cannot read: {request[:80]!r}"
        for address in _addresses(named[1].decode().strip("[]")):
            assert is_public(ipaddress.ip_address(address)), f"the proxy was sent to {address}"


def _resolve(host: str, _port: int) -> list[str]:
    """Lead names, and public addresses, to the listener; other addresses to themselves."""
    found = _addresses(host)
    if not found and not NAME.fullmatch(host):
        raise OSError("Name or service not known")
    inside = [address for address in found if not is_public(ipaddress.ip_address(address))]
    return [INSIDE if address.endswith(ALLOWED) else address for address in inside] or [ALLOWED]


def _addresses(host: str) -> list[str]:
    """Return what *host* means where it is an address, in whatever spelling."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(info[4][0]) for info in infos]


def _filled(url: str, listener: Listener) -> str:
    place = PLACE.as_posix()
    return (
        url.replace("{port}", str(listener.port))
        .replace("{input}", place)
        .replace("{beside}", place)
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
    """Return IPv4 addresses, those that lead inside more often, in each way to write them."""
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
def _scratched(draw: st.DrawFn, url: str) -> str:
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(url)))
        taken = draw(st.sampled_from([0, 0, 1, 2, 5]))
        url = (
            url[:at]
            + draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=2)))
            + url[at + taken :]
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
        name, value = draw(st.one_of(st.sampled_from(TELLING), anything))
        lines.append(f"{name}: {value}".encode("utf-8", "surrogatepass"))
    whole = b"\r\n".join([*lines, b"", draw(st.sampled_from(BODIES))])
    return draw(
        st.sampled_from(
            [whole, whole, whole, whole[: len(whole) // 2], whole.replace(b"\r\n", b"\n")]
        )
    )


def _show(scene: Scene) -> bytes:
    return (repr(scene) + "\n").encode("utf-8", "backslashreplace")


@cache
def _watch() -> Watch:
    return Watch(ALLOWED)
