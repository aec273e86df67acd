"""Requests to strangers' URLs: which addresses are reached, what is shown, and when they end."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from common.addresses import AddressPolicy, is_public
from common.deadline import Deadline, DeadlineExpired
from common.errors import Cancelled, UrlForbidden
from common.network import Network, Response, printable_url
from common.outages import Outage
from common.pace import Pace, TooSlow
from tests import own_addresses, servers

SOON_SECONDS = 0.3
AMPLE_SECONDS = 30.0

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378::1", "2001:db8::1", "2001:20::1",
    "2002:7f00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%1",
    "fec0::1", "ff02::1", "ff0e::1", "192.0.0.192", "168.63.129.16", "::ffff:168.63.129.16",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "::ffff:8.8.8.8",
    "2606:4700:4700::1111",
    "2a00:1450::1",
]


def answer(network, url, limit=None, **arguments):
    with network.request(
        "GET", url, limit=limit or Deadline(AMPLE_SECONDS), **arguments
    ) as response:
        return response.status, b"".join(response.chunks())


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_leads_inside_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_an_allowed_range_is_reached_and_the_name_stays_on_the_request(http):
    network = Network([ipaddress.ip_network("127.0.0.0/8")], resolver=lambda *_: ["127.0.0.1"])

    assert answer(network, http.url("/bytes/10", host="song.example")) == (200, servers.pattern(10))
    assert http.seen[0].headers["Host"] == f"song.example:{http.port}"
    assert http.seen[0].headers["Accept-Encoding"] == "identity"


def test_one_private_address_among_the_answers_forbids_the_host(http):
    network = Network(
        [ipaddress.ip_network("127.0.0.1/32")], resolver=lambda *_: ["127.0.0.1", "10.0.0.1"]
    )

    with pytest.raises(UrlForbidden):
        answer(network, http.url("/bytes/10", host="song.example"))
    assert http.seen == []


def test_a_name_is_asked_for_once_so_that_a_changed_answer_changes_nothing(http):
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    network = Network([ipaddress.ip_network("127.0.0.1/32")], resolver=lambda *_: next(answers))

    assert answer(network, http.url("/bytes/10", host="song.example"))[0] == 200
    assert next(answers) == ["169.254.169.254"]


def test_the_second_address_is_tried_when_the_first_refuses(http):
    network = Network(
        [ipaddress.ip_network("127.0.0.0/8")], resolver=lambda *_: ["127.0.0.9", "127.0.0.1"]
    )

    assert answer(network, http.url("/bytes/10", host="song.example"))[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what does not fit a queue")
def test_the_last_address_is_tried_in_time_when_those_before_it_never_answer(http):
    dead = ["127.0.0.2", "127.0.0.3"]
    network = Network(
        [ipaddress.ip_network("127.0.0.0/8")], resolver=lambda *_: [*dead, "127.0.0.1"]
    )

    with servers.full_listener(dead[0], http.port), servers.full_listener(dead[1], http.port):
        status, _ = answer(network, http.url("/bytes/10", host="song.example"), Deadline(6))
    assert status == 200


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        (["2600::1", "2600::2", "1.1.1.1"], ["2600::1", "1.1.1.1", "2600::2"]),
        (["1.1.1.1", "1.1.1.2", "2600::1"], ["1.1.1.1", "2600::1", "1.1.1.2"]),
        (
            ["1.1.1.1", "2600::1", "2600::2", "2600::3"],
            ["1.1.1.1", "2600::1", "2600::2", "2600::3"],
        ),
        (["2600::2", "2600::1"], ["2600::2", "2600::1"]),
    ],
)
def test_the_families_are_tried_in_turn_the_preferred_one_first(found, tried):
    policy = AddressPolicy([], lambda *_: found)

    assert [str(one) for one in policy.resolve("song.example", 443, Deadline(30))] == tried


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses to connect to 0.0.0.0")
def test_the_peer_is_checked_again_after_connecting(http):
    # 0.0.0.0 is exempt here, but the peer behind it is 127.0.0.1, which is not.
    with pytest.raises(UrlForbidden):
        answer(Network([ipaddress.ip_network("0.0.0.0/32")]), http.url("/bytes/10", host="0.0.0.0"))
    assert http.seen == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a network of its own")
def test_a_public_address_of_the_machine_itself_is_not_reached_over_loopback():
    setup = "ip link set lo up && ip addr add {0}/32 dev lo && ip addr add {1}/128 dev lo nodad"
    command = f'{setup.format(own_addresses.IPV4, own_addresses.IPV6)} && exec "$@"'
    probe = [sys.executable, "-m", "tests.own_addresses"]
    isolated = ["unshare", "--map-root-user", "--net", "sh", "-c", command, "sh"]
    try:
        subprocess.run([*isolated, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own: {error}")

    done = subprocess.run([*isolated, *probe], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in own_addresses.SPELLINGS} == dict.fromkeys(
        own_addresses.SPELLINGS, ["url_forbidden"] * 3
    )
    assert found["connections"] == 0
    allowed = {found[f"{name} allowed"] for name in own_addresses.SPELLINGS}
    assert (allowed, found["proxy"]) == ({"reached"}, "reached")


def test_proxies_of_the_environment_are_not_used(http, network, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert answer(network, http.url("/bytes/10"))[0] == 200


def test_a_redirect_is_an_answer_and_not_followed(http, network):
    assert answer(network, http.url("/redirect/1/10"))[0] == 302
    assert len(http.seen) == 1


def test_tls_asks_for_the_name_and_holds_the_certificate_to_it(tmp_path):
    certificate = servers.make_certificate(tmp_path, "song.example")
    network = Network(
        [ipaddress.ip_network("127.0.0.1/32")],
        resolver=lambda *_: ["127.0.0.1"],
        ca_file=certificate[0],
    )
    with servers.http_server(certificate) as https:
        assert answer(network, https.url("/bytes/100000", host="song.example")) == (
            200,
            servers.pattern(100_000),
        )
        assert https.names == ["song.example"]
        with pytest.raises(Outage, match="certificate is invalid"):
            answer(network, https.url("/bytes/10", host="other.example"))


def test_a_certificate_that_nobody_signed_is_refused(tmp_path):
    with servers.http_server(servers.make_certificate(tmp_path, "song.example")) as https:
        network = Network([ipaddress.ip_network("127.0.0.1/32")], resolver=lambda *_: ["127.0.0.1"])
        with pytest.raises(Outage, match="certificate is invalid"):
            answer(network, https.url("/bytes/10", host="song.example"))
        assert https.seen == []


@pytest.mark.parametrize("path", ["/silent", "/drip-headers", "/drip", "/announced/1000"])
def test_the_deadline_ends_a_server_that_keeps_us_waiting(http, network, path):
    with pytest.raises(DeadlineExpired):
        answer(network, http.url(path), Deadline(SOON_SECONDS))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_ends_a_server_that_accepts_and_says_nothing(network, scheme):
    with servers.mute_listener() as port, pytest.raises(DeadlineExpired):
        answer(network, f"{scheme}://127.0.0.1:{port}/", Deadline(SOON_SECONDS))


def test_the_deadline_ends_a_resolver_that_never_answers():
    never = threading.Event()
    network = Network(resolver=lambda *_: [str(never.wait())])

    with pytest.raises(DeadlineExpired):
        answer(network, "http://song.example/", Deadline(SOON_SECONDS))
    never.set()


@pytest.mark.parametrize("path", ["/silent", "/drip", "/announced/1000"])
def test_a_cancelled_turn_ends_a_request_that_waits(http, network, path):
    cancelled = threading.Event()
    http.on_request = cancelled.set

    with pytest.raises(Cancelled):
        answer(network, http.url(path), Deadline(AMPLE_SECONDS, cancelled=cancelled))


def test_a_drip_below_the_minimum_rate_is_too_slow(http, network):
    pace = Pace(Deadline(AMPLE_SECONDS), window_seconds=0.2, min_bytes_per_second=1e6)

    with network.request("GET", http.url("/drip"), limit=pace) as response:
        pace.count(0)
        with pytest.raises(TooSlow):
            list(response.chunks())


def test_a_pace_bounds_no_wait_before_the_first_byte():
    moment = [0.0]
    pace = Pace(Deadline(100, clock=lambda: moment[0]), window_seconds=10, clock=lambda: moment[0])
    moment[0] = 50.0

    assert pace.remaining_seconds() == 50
    pace.count(0)
    assert pace.remaining_seconds() == 10
    moment[0] = 60.0
    with pytest.raises(TooSlow):
        pace.remaining_seconds()


def test_a_pace_that_holds_opens_the_next_window():
    moment = [0.0]
    pace = Pace(Deadline(100, clock=lambda: moment[0]), window_seconds=10, clock=lambda: moment[0])
    pace.count(0)
    pace.count(10 * 1024)
    moment[0] = 10.0

    assert pace.remaining_seconds() == 10


@pytest.mark.parametrize("path", ["/short/1000", "/garbage"])
def test_an_answer_that_breaks_off_is_an_outage(http, network, path):
    with pytest.raises(Outage):
        answer(network, http.url(path))


def test_a_name_that_does_not_exist_is_an_outage():
    def unknown(_host, _port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Outage, match="cannot be resolved"):
        answer(Network(resolver=unknown), "http://song.example/")


@pytest.mark.parametrize("path", ["/short/1000", "/garbage", "/nowhere"])
def test_what_fails_tells_no_secret_of_the_url_not_even_to_a_log_of_its_traceback(
    http, network, path
):
    port = servers.free_port() if path == "/nowhere" else http.port
    url = "".join(["http://user:hunter", "2@127.0.0.1:", str(port), path, "?token=hunter", "2"])
    logged = io.StringIO()
    sink = logger.add(logged, backtrace=False, diagnose=False, colorize=False)
    try:
        answer(network, url)
    except Outage:
        logger.exception("It failed")
    logger.remove(sink)

    assert "Outage" in logged.getvalue()
    assert "hunter2" not in logged.getvalue()


def test_a_malformed_header_puts_no_url_into_any_log(http, network, caplog):
    with network.request(
        "GET", http.url("/malformed?token=hunter2"), limit=Deadline(AMPLE_SECONDS)
    ) as response:
        assert response.status == 200
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 86_400.0),
        ("Sat, 21 Nov 2026 07:05:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
        ("9" * 5000, 86_400.0),
        ("Sat, 21 Nov 99999999999999 07:05:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    answer: Any = SimpleNamespace(status_code=503, headers={"Retry-After": header}, raw=None)

    assert Response(answer).retry_after_seconds(1_795_244_700.0) == seconds


def test_an_announced_size_of_thousands_of_digits_is_a_size_too():
    answer: Any = SimpleNamespace(status_code=200, headers={"Content-Length": "9" * 5000}, raw=None)

    assert Response(answer).content_length_bytes() == int("9" * 19)


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:secret", "user:secret"),
        ("user", "user:"),
        (":secret", ":secret"),
        ("€:x", "€:x"),
        ("x%3a%E2%82%AC:y%40:z", "x:€:y@:z"),
    ],
)
def test_credentials_of_the_url_are_sent_as_utf_8(http, network, userinfo, credentials):
    answer(network, http.url("/bytes/10", host=f"{userinfo}@127.0.0.1"))

    encoded = base64.b64encode(credentials.encode()).decode()
    assert http.seen[0].headers["Authorization"] == f"Basic {encoded}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://user:secret@host.example:8443/a/b.mp3?token=secret#secret",
            "https://host.example:8443/a/b.mp3",
        ),
        ("s3://bucket/key.wav", "s3://bucket/key.wav"),
        ("http://[::1", "(an unreadable URL)"),
        ("http://host/\x1b[31m\r\nforged", "http://host/?[31mforged"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert printable_url(url) == shown
