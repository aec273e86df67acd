"""Answers of HTTP servers, byte for byte: which are the song, and which are refused or retried."""

from __future__ import annotations

import gzip
import threading
import zlib

import pytest

from common.callback import Callbacks
from common.download import Downloader
from common.errors import CallbackFailed, DownloadFailed, InputEmpty
from common.network import Network
from common.outages import Backoff
from tests import servers
from tests.fixtures_edges import LOOPBACK, link, make_outcome

SONG = servers.pattern(50_000)
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def head(status=200, *fields, reason="Whatever"):
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *fields, "", ""]).encode("latin-1")


def sized(body, status=200, *fields):
    return head(status, f"Content-Length: {len(body)}", *fields) + body


def chunked(body, status=200, *fields):
    parts = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head(status, "Transfer-Encoding: chunked", *fields) + framed + b"0\r\n\r\n"


def closed(body, status=200, *fields):
    return head(status, "Connection: close", *fields) + body


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


FRAMINGS = [sized, chunked, closed]


@pytest.fixture
def fetch(tmp_path):
    """Return a function that downloads what a server sends, and one that counts its requests."""

    def fetch_from(answer, path="/song", host="127.0.0.1"):
        answers = answer if callable(answer) else lambda _: answer
        with servers.raw_server(answers) as server:
            fetch_from.server = server  # type: ignore[attr-defined]  # of a function
            downloader = Downloader(
                Network(LOOPBACK, resolver=lambda *_: ["127.0.0.1"]),
                timeout_seconds=30,
                max_bytes=1_000_000,
                backoff=Backoff(0, 0),
            )
            downloader.fetch(
                server.url(path, host),
                tmp_path / "song",
                progress=lambda _: None,
                cancelled=threading.Event(),
            )
            return (tmp_path / "song").read_bytes()

    return fetch_from


def send(answer):
    """Send a callback to a server with this *answer*."""
    with servers.raw_server(lambda _: answer) as server:
        Callbacks(Network(LOOPBACK), [], 30).send(server.url(), make_outcome(), link)


# Content-Encoding


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
        ("identity, gzip", gzip.compress),
        ("aws-chunked", bytes),
        ("gzip,aws-chunked", gzip.compress),
    ],
)
def test_a_body_that_was_encoded_unasked_is_decoded(fetch, frame, encoding, pack):
    assert fetch(frame(pack(SONG), 200, f"Content-Encoding: {encoding}")) == SONG


def test_a_gzip_body_of_several_members_and_zero_padding_is_decoded(fetch):
    body = gzip.compress(SONG[:20_000]) + gzip.compress(SONG[20_000:]) + bytes(512)

    assert fetch(sized(body, 200, "Content-Encoding: gzip")) == SONG


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
@pytest.mark.parametrize("lost", [1, 4, 9, 0.5, 0.99])
def test_an_encoded_body_that_is_cut_short_is_fetched_again_and_then_fails(
    fetch, frame, encoding, pack, lost
):
    body = pack(SONG)
    cut = body[: -int(lost * len(body)) if lost < 1 else -lost]

    with pytest.raises(DownloadFailed, match="cut short") as caught:
        fetch(frame(cut, 200, f"Content-Encoding: {encoding}"))
    assert caught.value.retryable
    assert len(fetch.server.requests) == 3


def test_a_second_gzip_member_that_is_cut_short_fails_too(fetch):
    body = gzip.compress(SONG) + gzip.compress(SONG)[:-20]

    with pytest.raises(DownloadFailed, match="cut short"):
        fetch(closed(body, 200, "Content-Encoding: gzip"))


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize(
    ("encoding", "damage"),
    [
        ("gzip", lambda: gzip.compress(SONG) + b"garbage"),
        ("gzip", lambda: gzip.compress(SONG)[:-8] + b"\0\0\0\0" + gzip.compress(SONG)[-4:]),
        ("gzip", lambda: gzip.compress(SONG)[:-4] + b"\0\0\0\1"),
        ("gzip", lambda: SONG),
        ("deflate", lambda: zlib.compress(SONG)[:-4] + b"\0\0\0\0"),
        ("deflate", lambda: zlib.compress(SONG) + b"garbage"),
        ("deflate", lambda: raw_deflate(SONG) + b"garbage"),
    ],
)
def test_an_encoded_body_that_is_damaged_is_fetched_again_and_then_fails(
    fetch, frame, encoding, damage
):
    with pytest.raises(DownloadFailed, match="damaged") as caught:
        fetch(frame(damage(), 200, f"Content-Encoding: {encoding}"))
    assert caught.value.retryable
    assert len(fetch.server.requests) == 3


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "compress", "gzip, br", "gzip, gzip", "x\x1b[1m"]
)
def test_an_encoding_that_was_not_asked_for_is_refused_by_name(fetch, frame, encoding):
    with pytest.raises(DownloadFailed, match="Content-Encoding") as caught:
        fetch(frame(SONG, 200, f"Content-Encoding: {encoding}"))
    assert not caught.value.retryable
    assert encoding.split()[0].strip(",\x1b[1m") in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("coding", ["", "identity"])
def test_a_transfer_coding_that_changes_nothing_is_none(fetch, coding):
    assert fetch(sized(SONG, 200, f"Transfer-Encoding: {coding}")) == SONG


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, gzip"])
def test_a_transfer_coding_that_was_not_asked_for_is_refused_by_name(fetch, coding):
    with pytest.raises(DownloadFailed, match="Transfer-Encoding") as caught:
        fetch(head(200, f"Transfer-Encoding: {coding}", "Connection: close") + SONG)
    assert not caught.value.retryable


@pytest.mark.parametrize("field", ["Transfer-Encoding: gzip", "Content-Encoding: br"])
def test_an_encoding_that_was_not_asked_for_leaves_a_callback_delivered(field):
    send(head(200, field, "Connection: close") + b"ok")


@pytest.mark.parametrize("frame", [sized, chunked])
def test_a_body_that_is_cut_short_is_fetched_again_and_then_fails(fetch, frame):
    with pytest.raises(DownloadFailed) as caught:
        fetch(frame(SONG)[:-20])
    assert caught.value.retryable
    assert len(fetch.server.requests) == 3


def test_an_answer_that_is_cut_within_its_headers_is_fetched_again_and_then_fails(fetch):
    with pytest.raises(DownloadFailed) as caught:
        fetch(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n")
    assert caught.value.retryable
    assert len(fetch.server.requests) == 3


@pytest.mark.parametrize("field", ["Transfer-Encoding: chunked ", "Transfer-Encoding : Chunked"])
@pytest.mark.parametrize("before", ["X: 1", "no colon at all"])
def test_a_sloppy_header_does_not_hide_how_the_body_is_framed(fetch, field, before):
    body = chunked(SONG).partition(b"\r\n\r\n")[2]

    assert fetch(head(200, before, field, "Connection: close") + body) == SONG


# 1xx


@pytest.mark.parametrize(
    "interim",
    [EARLY_HINTS, PROCESSING, CONTINUE, (CONTINUE + PROCESSING + EARLY_HINTS) * 20],
    ids=["103", "102", "100", "60 of them"],
)
@pytest.mark.parametrize("frame", FRAMINGS)
def test_interim_answers_before_the_song_are_skipped(fetch, interim, frame):
    assert fetch(interim + frame(SONG)) == SONG


@pytest.mark.parametrize("interim", [EARLY_HINTS, PROCESSING, CONTINUE + EARLY_HINTS * 3])
@pytest.mark.parametrize("final", [head(204), sized(b"ok"), closed(b"")])
def test_interim_answers_before_2xx_leave_a_callback_delivered(interim, final):
    send(interim + final)


def test_interim_answers_before_a_failure_leave_it_a_failure():
    with pytest.raises(CallbackFailed, match="answered 503"):
        send(EARLY_HINTS + sized(b"", 503))


def test_interim_answers_without_end_are_refused(fetch):
    with pytest.raises(DownloadFailed, match="headers"):
        fetch(EARLY_HINTS * 10_000)


def test_a_switch_of_protocols_that_nobody_asked_for_is_refused(fetch):
    with pytest.raises(DownloadFailed, match="answered 101"):
        fetch(head(101, "Upgrade: websocket") + sized(SONG))


# Statuses


@pytest.mark.parametrize("status", [200, 203])
def test_these_statuses_are_the_song(fetch, status):
    assert fetch(sized(SONG, status)) == SONG


@pytest.mark.parametrize("status", [201, 206, 207, 226, 299])
def test_other_statuses_of_2xx_are_not_the_song(fetch, status):
    with pytest.raises(DownloadFailed, match=f"answered {status}") as caught:
        fetch(sized(SONG, status, "Content-Range: bytes 0-49999/90000"))
    assert not caught.value.retryable
    assert len(fetch.server.requests) == 1


def test_a_song_that_is_not_ready_yet_is_asked_for_again(fetch):
    answers = [sized(b"wait", 202, "Retry-After: 0"), sized(b"wait", 202), sized(SONG)]

    assert fetch(lambda number: answers[number]) == SONG


def test_a_song_that_is_never_ready_fails_and_may_be_sent_again(fetch):
    with pytest.raises(DownloadFailed, match="202") as caught:
        fetch(sized(b"wait", 202))
    assert caught.value.retryable
    assert len(fetch.server.requests) == 3


@pytest.mark.parametrize("status", [204, 205])
def test_an_answer_without_content_is_an_empty_input(fetch, status):
    with pytest.raises(InputEmpty):
        fetch(head(status, "Connection: close"))


# Large headers

MANY = [f"X-Header-{number}: {number}" for number in range(900)]
LONG = ["X-Long: " + "a" * 70_000]


@pytest.mark.parametrize("fields", [MANY, LONG, [*MANY, *LONG]], ids=["many", "long", "both"])
@pytest.mark.parametrize("frame", FRAMINGS)
def test_many_headers_and_long_ones_do_not_fail_a_download(fetch, fields, frame):
    assert fetch(frame(SONG, 200, *fields)) == SONG


@pytest.mark.parametrize("fields", [MANY, LONG], ids=["many", "long"])
def test_many_headers_and_long_ones_do_not_fail_a_callback(fields):
    send(sized(b"ok", 200, *fields))


@pytest.mark.parametrize(
    "fields",
    [["X: 1"] * 5000, ["X: " + "a" * 300_000], ["X: " + "a" * 60_000] * 5],
    ids=["too many", "one too long", "too long together"],
)
def test_headers_beyond_the_limits_are_refused_in_words(fetch, fields):
    with pytest.raises(DownloadFailed, match="headers") as caught:
        fetch(sized(SONG, 200, *fields))
    assert not caught.value.retryable
    assert len(fetch.server.requests) == 1
    with pytest.raises(CallbackFailed, match="headers"):
        send(sized(b"", 200, *fields))


# Redirects and cookies


def redirect(location, *fields):
    return sized(b"", 302, f"Location: {location}", *fields)


def test_twenty_redirects_are_followed(fetch):
    assert fetch(lambda number: redirect(f"/{number}") if number < 20 else sized(SONG)) == SONG


def test_the_21st_redirect_is_refused_in_words(fetch):
    with pytest.raises(DownloadFailed, match="redirects more than 20 times") as caught:
        fetch(lambda number: redirect(f"/{number}"))
    assert not caught.value.retryable
    assert len(fetch.server.requests) == 21


def test_a_cookie_that_is_set_with_a_redirect_is_sent_to_its_target(fetch):
    answers = [
        redirect("/a", "Set-Cookie: one=1; Path=/", "Set-Cookie: two=b=\xfc; HttpOnly"),
        redirect("/b", "Set-Cookie: one=2; Path=/", "Set-Cookie: two=; Max-Age=0"),
        sized(SONG),
    ]

    assert fetch(lambda number: answers[number]) == SONG
    assert fetch.server.header("Cookie") == [None, "one=1; two=b=\xfc", "one=2"]


@pytest.mark.parametrize(
    ("cookie", "target", "is_sent"),
    [
        ("a=1", "http://one.song.example:{port}/b", True),
        ("a=1", "http://two.song.example:{port}/b", False),
        ("a=1", "http://deep.one.song.example:{port}/b", False),
        ("a=1; Domain=song.example", "http://two.song.example:{port}/b", True),
        ("a=1; Domain=.song.example", "http://two.song.example:{port}/b", True),
        ("a=1; Domain=song.example", "http://two.evilsong.example:{port}/b", False),
        ("a=1; Domain=other.example", "http://other.example:{port}/b", False),
        ("a=1; Domain=example", "http://two.song.example:{port}/b", False),
        ("a=1; Path=/b", "/b/c", True),
        ("a=1; Path=/b", "/bc", False),
        ("a=1; Secure", "/b", False),
        ("a=1; Max-Age=0", "/b", False),
        ("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "/b", False),
    ],
)
def test_a_cookie_is_sent_only_where_its_domain_and_path_allow(fetch, cookie, target, is_sent):
    def answer(number):
        location = target.format(port=fetch.server.port)
        return sized(SONG) if number else redirect(location, f"Set-Cookie: {cookie}")

    fetch(answer, "/a", "one.song.example")
    assert fetch.server.header("Cookie") == [None, "a=1" if is_sent else None]


def test_a_cookie_does_not_outlive_its_download(fetch):
    for _ in range(2):
        assert fetch(sized(SONG, 200, "Set-Cookie: a=1; Path=/")) == SONG
        assert fetch.server.header("Cookie") == [None]


def test_a_cookie_of_a_public_suffix_is_not_taken(fetch):
    def answer(number):
        location = f"http://two.co.uk:{fetch.server.port}/"
        return sized(SONG) if number else redirect(location, "Set-Cookie: a=1; Domain=co.uk")

    fetch(answer, "/", "one.co.uk")
    assert fetch.server.header("Cookie") == [None, None]
