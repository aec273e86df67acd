"""Requests through an egress proxy: it alone gets its credentials, and addresses are checked."""

from __future__ import annotations

import socket
import threading

import pytest

from common.callback import Callbacks
from common.deadline import Deadline
from common.download import Downloader
from common.errors import DownloadFailed, UrlForbidden
from common.network import Network
from common.outages import Backoff, Outage
from tests import servers
from tests.egress_proxy import egress_proxy
from tests.fixtures_edges import link, make_outcome


def only_addresses(host, _port):
    """Resolve only addresses, as on a network where only the proxy resolves names."""
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [info[4][0] for info in infos]


def answer(network, url):
    with network.request("GET", url, limit=Deadline(30)) as response:
        return response.status, b"".join(response.chunks())


def test_http_goes_to_the_proxy_in_absolute_form_and_its_credentials_no_further(http):
    with egress_proxy({"song.example": http.port}, "me:hunter2") as proxy:
        network = Network(resolver=only_addresses, proxy_url=proxy.url)

        assert answer(network, "http://song.example/bytes/1000") == (200, servers.pattern(1000))

    assert (proxy.asked[0].method, proxy.asked[0].target) == (
        "GET",
        "http://song.example/bytes/1000",
    )
    assert http.seen[0].headers["Host"] == "song.example"
    assert not [name for name in http.seen[0].headers if name.lower().startswith("proxy-")]


def test_https_goes_through_a_tunnel_whose_end_is_held_to_the_name(tmp_path):
    certificate = servers.make_certificate(tmp_path, "song.example")
    with (
        servers.http_server(certificate) as https,
        egress_proxy(
            {"song.example:443": https.port, "other.example:443": https.port}, "me:hunter2"
        ) as proxy,
    ):
        network = Network(resolver=only_addresses, ca_file=certificate[0], proxy_url=proxy.url)

        assert answer(network, "https://song.example/bytes/100000") == (
            200,
            servers.pattern(100_000),
        )
        with pytest.raises(Outage, match="certificate is invalid"):
            answer(network, "https://other.example/bytes/10")

    assert (proxy.asked[0].method, proxy.asked[0].target) == ("CONNECT", "song.example:443")
    assert "Proxy-Authorization" in proxy.asked[0].headers
    assert "Proxy-Authorization" not in https.seen[0].headers
    assert https.names[0] == "song.example"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00::1]",
    ],
)
def test_an_address_that_leads_inside_is_not_even_named_to_the_proxy(scheme, host):
    with egress_proxy({}) as proxy:
        with pytest.raises(UrlForbidden):
            answer(Network(resolver=only_addresses, proxy_url=proxy.url), f"{scheme}://{host}/")
        assert proxy.asked == []


def test_a_name_that_we_know_to_lead_inside_is_not_named_to_the_proxy_either():
    with egress_proxy({}) as proxy:
        addresses = {"127.0.0.1": ["127.0.0.1"], "inside.example": ["1.1.1.1", "10.0.0.1"]}
        with pytest.raises(UrlForbidden):
            answer(
                Network(resolver=lambda host, _: addresses[host], proxy_url=proxy.url),
                "http://inside.example/",
            )
        assert proxy.asked == []


def test_a_resolver_that_does_not_answer_leaves_the_name_to_the_proxy(http):
    never = threading.Event()

    def silent(host, port):
        return only_addresses(host, port) if host == "127.0.0.1" else [str(never.wait())]

    with egress_proxy({"song.example": http.port}) as proxy:
        assert (
            answer(Network(resolver=silent, proxy_url=proxy.url), "http://song.example/bytes/10")[0]
            == 200
        )
    never.set()


def test_each_redirect_is_looked_at_before_the_proxy_hears_of_it(http, tmp_path):
    with egress_proxy({"song.example": http.port}) as proxy:
        downloader = Downloader(
            Network(resolver=only_addresses, proxy_url=proxy.url),
            timeout_seconds=30,
            max_bytes=1000,
        )
        with pytest.raises(UrlForbidden):
            downloader.fetch(
                "http://song.example/to?url=http://169.254.169.254/latest",
                tmp_path / "song",
                progress=lambda _: None,
                cancelled=threading.Event(),
            )
        assert len(proxy.asked) == 1


def test_callbacks_go_through_the_proxy(http):
    with egress_proxy({"hook.example": http.port}) as proxy:
        Callbacks(Network(resolver=only_addresses, proxy_url=proxy.url), [], 30).send(
            "http://hook.example/status/200", make_outcome(), link
        )
    assert (proxy.asked[0].method, http.seen[0].method) == ("POST", "POST")


@pytest.mark.parametrize(
    ("credentials", "source", "reason"),
    [
        ("me:hunter2", "https://song.example", "proxy answered 407"),
        ("me:hunter2", "http://song.example", "proxy answered 407"),
        (None, "https://other.example", "proxy answered 403"),
    ],
)
def test_what_the_proxy_refuses_says_so_and_tells_no_secret(tmp_path, credentials, source, reason):
    with egress_proxy({"song.example:443": 1}, credentials) as proxy:
        network = Network(
            resolver=only_addresses, proxy_url=proxy.url.replace("hunter2", "wrong-hunter2")
        )
        downloader = Downloader(network, timeout_seconds=30, max_bytes=1000, backoff=Backoff(0, 0))
        with pytest.raises(DownloadFailed, match=reason) as caught:
            downloader.fetch(
                f"{source}/",
                tmp_path / "song",
                progress=lambda _: None,
                cancelled=threading.Event(),
            )
    assert caught.value.retryable
    assert "hunter2" not in caught.value.message


def test_a_proxy_that_is_away_is_an_outage_and_nothing_goes_around_it(http):
    proxy_url = f"http://127.0.0.1:{servers.free_port()}"
    resolver = {"127.0.0.1": ["127.0.0.1"], "song.example": ["1.1.1.1"]}
    network = Network(resolver=lambda host, _: resolver[host], proxy_url=proxy_url)

    with pytest.raises(Outage, match="the connection to the egress proxy failed"):
        answer(network, http.url("/bytes/10", host="song.example"))
    assert http.seen == []
