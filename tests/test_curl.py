"""Requests have the target and the Host that curl sends: 200 generated URLs and redirects.

Some differences are on purpose. A signature is over bytes, so a `?` at the end stays, which curl
(7.88) drops from a Location, but not from a URL. A request is ASCII, so UTF-8 in the query of a
first URL is quoted, which curl sends as it is, and a space, which curl refuses there. Escapes that
we make are in upper case (RFC 3986), curl's in lower case.

Where curl departs from RFC 3986, nothing is generated: it resolves a Location against its base with
the fragment, takes one of only a fragment for the folder, and loses empty segments at the start of
the base or after `./`, and the slash of `../?q`. Nor what we refuse because readers differ:
`http:/x`, which curl takes for `http://x`, and a backslash in the authority, which it takes for a
part of the userinfo.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass

import pytest

from common.callback import Callbacks
from common.download import Downloader
from common.errors import CallbackFailed, UrlForbidden
from common.network import Network
from tests import servers
from tests.fixtures_edges import LOOPBACK, link, make_outcome

#: Hosts of URLs; all of them lead to the test's server.
HOSTS = [
    "song.example", "Song.Example", "deep.song.example", "song.example.", "so_ng.example",
    "bücher.example", "STRASSE.example", "straße.example", "%73ong.example", "b%C3%BCcher.example",
    "xn--bcher-kva.example", "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1",
]  # fmt: skip
#: Pieces of paths and queries that must stay as they are.
PIECES = [
    "a", "B7", "~", "%7e", "%7E", "%2f", "%2F", "%d7%90", "%D7%90", "%20", "+", "%2B", "%zz", "%",
    "=", "&", ";", ":", "@", "!", "$", "'", "(", ")", "*", ",", ".", "..", "...", "%2e", "%2E%2e",
    "//", "-", "_", "[0]", "{x}", "|", "^", "`", "\\", '"', "<", ">",
    "X-Amz-Credential=A%2F20261121%2Fus-east-1%2Fs3%2Faws4_request", "X-Amz-Signature=0fA9",
]  # fmt: skip
#: None of their bytes is among the escapes in PIECES.
UNICODE = ["ö", "東京", "é", "😀"]
GIVEN_ESCAPES = {"%d7", "%90"}


@dataclass(frozen=True)
class Chain:
    """A URL, and the values of Location that its server answers one after another."""

    url: str
    locations: tuple[bytes, ...] = ()


def _text(chance: random.Random, pieces: list[str], most: int) -> str:
    return "".join(chance.choices(pieces, k=chance.randint(0, most)))


def _path(chance: random.Random, pieces: list[str], is_last: bool) -> str:
    segments = [
        chance.choice(["", ".", "..", _text(chance, pieces, 3), _text(chance, pieces, 3)])
        for _ in range(chance.randint(0, 5))
    ]
    path = "/" + "/".join(segments)
    return path if is_last else re.sub("/+", "/", path)


def _query(chance: random.Random, pieces: list[str]) -> str:
    allowed = [*pieces, "/", "/../", "?", "http://x/"]
    return chance.choice(["", "?" + (_text(chance, allowed, 6) or "q")])


def _fragment(chance: random.Random, is_last: bool) -> str:
    return "" if not is_last else chance.choice(["", "", "#", "#a", "#a/../b?c"])


def _url(chance: random.Random, is_last: bool) -> str:
    scheme = chance.choice(["http", "http", "HTTP"])
    userinfo = chance.choice(["", "", "", "user:secret@", "user@", "%75ser:%c3%a9@"])
    path = chance.choice(["", *(_path(chance, PIECES + UNICODE, is_last) for _ in range(3))])
    query = chance.choice(["", "?", _query(chance, PIECES), _query(chance, PIECES + UNICODE)])
    place = f"{scheme}://{userinfo}{chance.choice(HOSTS)}:{{port}}"
    return f"{place}{path}{query}{_fragment(chance, is_last)}"


def _location(chance: random.Random, is_last: bool) -> bytes:
    # A few servers send Latin-1; a host in it has no name.
    encoding = chance.choice(["utf-8", "utf-8", "latin-1"])
    pieces = [*PIECES, " ", *(["ö", "é"] if encoding == "latin-1" else UNICODE)]
    path, query = _path(chance, pieces, is_last), _query(chance, pieces)
    # A first segment with a colon would be a scheme, and an empty one would begin a host.
    relative = re.sub(r"^[^/?]*:", "a", re.sub("/+", "/", path).lstrip("/ ")) or "."
    starts = ["/x" + path if path.startswith("//") else path, relative, "../" + relative]
    if encoding == "utf-8":
        host = chance.choice(HOSTS)
        starts += [f"//{host}:{{port}}{path}", f"http://{host}:{{port}}{path}"]
    start = chance.choice([*starts, "" if query else "."])
    start += "a" if start.endswith("./") else ""
    blank = chance.choice(["", "", " ", "  "])
    return f"{blank}{start}{query}{_fragment(chance, is_last)}{blank}".encode(encoding)


def generate(count: int) -> list[Chain]:
    """Return *count* URLs, half of them with redirects."""
    chance = random.Random(14)
    chains: dict[Chain, None] = {}
    while len(chains) < count:
        hops = chance.choice([0, 0, 1, 3])
        locations = (_location(chance, number == hops - 1) for number in range(hops))
        chains[Chain(_url(chance, not hops), tuple(locations))] = None
    return list(chains)


class Recorder:
    """A server that answers with the redirects of a chain, and records each target and Host."""

    def __init__(self) -> None:
        self._locations: list[bytes] = []
        self._server = servers.RawServer(self._answer)
        self.stop = self._server.stop

    def _answer(self, number: int) -> bytes:
        left = self._locations[number:]
        start = b"302 Found\r\nLocation: " + left[0] if left else b"200 OK"
        return b"HTTP/1.1 " + start + b"\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"

    def record(self, chain: Chain, ask) -> list[tuple[str, str | None]]:
        """Return what *ask* sends for the URL of *chain*."""
        port = str(self._server.port)
        self._locations = [
            location.replace(b"{port}", port.encode()) for location in chain.locations
        ]
        self._server.requests.clear()
        ask(chain.url.replace("{port}", port))
        hosts = [host and host.replace(port, "{port}") for host in self._server.header("Host")]
        return list(zip(self._server.targets(), hosts, strict=True))

    def curl(self, url: str) -> None:
        """Ask for *url* as `curl --location` does."""
        command = ["curl", "--disable", "--silent", "--location", "--globoff", "--max-time", "20"]
        place = ["--noproxy", "*", "--connect-to", f"::127.0.0.1:{self._server.port}"]
        subprocess.run(
            [*command, *place, url],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )


@pytest.fixture(scope="module")
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture
def download(tmp_path):
    """Return a function that downloads a URL."""
    network = Network(LOOPBACK, resolver=lambda *_: ["127.0.0.1"])
    downloader = Downloader(network, timeout_seconds=30, max_bytes=1000)

    def ask(url):
        downloader.fetch(
            url, tmp_path / "song", progress=lambda _: None, cancelled=threading.Event()
        )

    return ask


def call(url):
    network = Network(LOOPBACK, resolver=lambda *_: ["127.0.0.1"])
    with contextlib.suppress(CallbackFailed):  # a redirect
        Callbacks(network, [], 30).send(url, make_outcome(), link)


def without_differences(target: str) -> str:
    """Return curl's *target* as we write it, see above."""
    quoted = "".join(c if c.isascii() else f"%{ord(c):02X}" for c in target)

    def upper(match: re.Match[str]) -> str:
        return match[0] if match[0].lower() in GIVEN_ESCAPES else match[0].upper()

    return re.sub(r"%[89a-f][0-9a-f]", upper, quoted)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl as the witness")
def test_200_urls_and_their_redirects_are_sent_byte_for_byte_as_curl_sends_them(recorder, download):
    chains = generate(200)
    curls = [recorder.record(chain, recorder.curl) for chain in chains]
    ours = [recorder.record(chain, download) for chain in chains]

    assert ours == [[(without_differences(target), host) for target, host in one] for one in curls]
    assert all(
        len(one) == len(chain.locations) + 1 for one, chain in zip(ours, chains, strict=True)
    )


def test_a_callback_is_sent_to_the_same_target_and_host_as_a_download(recorder, download):
    for chain in generate(50):
        alone = Chain(chain.url)
        assert recorder.record(alone, call) == recorder.record(alone, download)


#: As curl 7.88 sends them, for machines without it.
AS_CURL_SENDS_THEM = [
    ("", "/"),
    ("?x=1", "/?x=1"),
    ("/a?", "/a?"),
    ("/a?#f", "/a?"),
    ("#f", "/"),
    ("/%7e%2f%2F%c3%b6", "/%7e%2f%2F%c3%b6"),
    ("/a/../b/./c/", "/b/c/"),
    ("/a/%2e%2e/b", "/a/%2e%2e/b"),
    ("/../..", "/"),
    ("/a/..", "/"),
    ("/a/.", "/a/"),
    ("//a//b/..//", "//a///"),
    ("/a//../b", "/a/b"),
    ("/a?b=/../c", "/a?b=/../c"),
    ("/a+b?c+d&e=%20&&=", "/a+b?c+d&e=%20&&="),
    ("/a%zz%", "/a%zz%"),
    ("/a;b;c=d,e@f:g!$&'()*", "/a;b;c=d,e@f:g!$&'()*"),
    ("/a?b?c#d#e", "/a?b?c"),
    ("/.../.a/..b", "/.../.a/..b"),
]
REDIRECTS_AS_CURL_FOLLOWS_THEM = [
    ("/a b?c d", "/a%20b?c+d"),
    ("  /lead", "/lead"),
    ("/trail  ", "/trail"),
    ("?x", "/d1/d2/f?x"),
    ("../a", "/d1/a"),
    ("../../../a", "/a"),
    ("a/../b", "/d1/d2/b"),
    ("..", "/d1/"),
    (".", "/d1/d2/"),
    ("a?b=/../c", "/d1/d2/a?b=/../c"),
    ("?a/../b", "/d1/d2/f?a/../b"),
    ('/[x]{y}|\\z^`<>"', '/[x]{y}|\\z^`<>"'),
    ("\\\\other\\x", "/d1/d2/\\\\other\\x"),
    ("/\\other/x", "/\\other/x"),
    ("a/b:c", "/d1/d2/a/b:c"),
    (";x", "/d1/d2/;x"),
    ("/a#b?c", "/a"),
    ("/x//../y", "/x/y"),
    ("g;x=1/../y", "/d1/d2/y"),
]
#: With the differences above.
AS_WE_SEND_THEM = [
    ("/söng?q=ö", "/s%C3%B6ng?q=%C3%B6"),
    ("/a b?c d", "/a%20b?c%20d"),
]
REDIRECTS_AS_WE_FOLLOW_THEM = [
    ("/söng", "/s%C3%B6ng"),
    ("/p?", "/p?"),
    ("?", "/d1/d2/f?"),
    ("#f", "/d1/d2/f?q=1"),
]


@pytest.mark.parametrize(("rest", "target"), AS_CURL_SENDS_THEM + AS_WE_SEND_THEM)
def test_a_url_is_sent_as_given_and_quoted_only_where_a_request_needs_it(
    recorder, download, rest, target
):
    chain = Chain("http://song.example:{port}" + rest)

    assert recorder.record(chain, download) == [(target, "song.example:{port}")]


@pytest.mark.parametrize(
    ("location", "target"), REDIRECTS_AS_CURL_FOLLOWS_THEM + REDIRECTS_AS_WE_FOLLOW_THEM
)
def test_a_redirect_is_followed_as_its_bytes_say(recorder, download, location, target):
    chain = Chain("http://song.example:{port}/d1/d2/f?q=1", (location.encode(),))

    assert recorder.record(chain, download)[1] == (target, "song.example:{port}")


@pytest.mark.parametrize(
    "location",
    ["/tab\tx", "/a\x01b", "/a\x7fb", "http:x", "http:/x", "http:///x", "a:b", "ftp://x/",
     "http://song.example\\@x/", "//song.example:99999/", "//song.example:0/", "//[::1/", "//a b/"],
)  # fmt: skip
def test_a_redirect_that_readers_take_for_different_things_is_refused(recorder, download, location):
    chain = Chain("http://song.example:{port}/", (location.encode(),))

    def refused(url):
        with pytest.raises(UrlForbidden, match="redirects"):
            download(url)

    assert len(recorder.record(chain, refused)) == 1
