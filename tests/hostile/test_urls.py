"""No URL reaches the inside: by spelling, name resolution, redirect, proxy or path."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from common.addresses import resolve
from common.callback import Callbacks
from common.download import Downloader
from common.errors import DownloadFailed, TaskError, UrlForbidden
from common.messages import Task
from common.network import Network
from common.outages import Backoff
from common.source_folders import SourceFolder
from tests import servers
from tests.egress_proxy import egress_proxy
from tests.fixtures_edges import link, make_outcome
from tests.hostile import urls
from tests.hostile.inside import SECRET, input_folder, inside

LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)
INSIDE_URLS = [
    "http://127.0.0.2:{port}/",
    "http://[::1]:{port}/",
    "http://169.254.169.254/",
    "http://song.example/",
]


class NoObjects:
    """A store that must not be read."""

    def read(self, bucket: str, key: str) -> Any:
        raise AssertionError(f"read {key} in {bucket}")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The inside, and an INPUT_DIR beside a canary."""
    beside = tmp_path_factory.mktemp("hostile")
    with inside() as service:
        yield SimpleNamespace(inside=service, beside=beside, input=input_folder(beside))
    assert service.reached == []


def fetch(place, url, network):
    """Download the source *url* of a task, like the processor; return the bytes."""
    task = Task.decode(json.dumps({"task_uuid": "a", "audio_url": url}).encode())
    limits: dict[str, Any] = {
        "timeout_seconds": 30,
        "max_bytes": 100_000,
        "backoff": Backoff(0, 0),
    }
    downloader = Downloader(
        network,
        **limits,
        input_dir=place.input,
        source_folders=[SourceFolder("songs")],
        store=NoObjects(),
    )
    destination = place.beside / "fetched"
    downloader.fetch(
        task.audio_url, destination, progress=lambda _: None, cancelled=threading.Event()
    )
    return destination.read_bytes()


def call(url, network):
    """Send a callback to the callback_url *url* of a task, like the uploader."""
    task = Task.decode(
        json.dumps({"task_uuid": "a", "audio_url": "x", "callback_url": url}).encode()
    )
    Callbacks(network, [], 30).send(task.callback_url or "", make_outcome(), link)


def filled(url, place):
    return url.filled(
        port=place.inside.port, input=place.input.as_posix(), beside=place.beside.as_posix()
    )


def network_of(url, **options):
    return Network(resolver=(lambda *_: url.hosts) if url.hosts else resolve, **options)


def test_the_corpus_is_as_large_as_it_is_meant_to_be():
    assert len(urls.CORPUS) >= 180
    assert len({(url.url, url.hosts) for url in urls.CORPUS}) == len(urls.CORPUS)


@pytest.mark.parametrize("url", urls.CORPUS, ids=repr)
def test_a_source_is_refused_with_its_code_and_reaches_nothing(place, url):
    with pytest.raises(TaskError) as caught:
        fetch(place, filled(url, place), network_of(url))

    assert caught.value.code == url.audio
    assert place.inside.reached == []


@pytest.mark.parametrize("url", urls.CORPUS, ids=repr)
def test_a_receiver_is_refused_with_its_code_and_reaches_nothing(place, url):
    with pytest.raises(TaskError) as caught:
        call(filled(url, place), network_of(url))

    assert caught.value.code == url.callback
    assert place.inside.reached == []


def test_a_proxy_hears_of_no_spelling_of_the_inside(place):
    with egress_proxy({}) as proxy:
        port = int(proxy.server_address[1])

        for url in (*urls.SPELLINGS, *urls.METADATA, *urls.NAMES):

            def look(host, at, hosts=url.hosts):
                return hosts if hosts and at != port else resolve(host, at)

            with pytest.raises(UrlForbidden):
                fetch(place, filled(url, place), Network(resolver=look, proxy_url=proxy.url))
        assert proxy.asked == []


def test_a_name_whose_answer_changes_between_tries_is_checked_each_time(place):
    # Nobody listens at the first answer, which is exempt; the second, for the next attempt, is the
    # inside.
    answers = iter([["127.0.0.9"], ["127.0.0.1"], ["127.0.0.1"]])
    network = Network([ipaddress.ip_network("127.0.0.9/32")], resolver=lambda *_: next(answers))

    with pytest.raises(UrlForbidden):
        fetch(place, f"http://song.example:{place.inside.port}/", network)
    assert len(list(answers)) == 1
    assert place.inside.reached == []


def test_a_name_that_turns_inside_after_the_check_is_not_asked_again(place, http):
    # Code that resolves twice, to check and to connect, would reach the second answer.
    asked = count()
    network = Network(LOOPBACK, resolver=lambda *_: ["127.0.0.1" if next(asked) == 0 else "::1"])

    assert fetch(place, http.url("/bytes/10", host="song.example"), network) == servers.pattern(10)
    assert next(asked) == 1


@pytest.mark.parametrize("target", INSIDE_URLS)
@pytest.mark.parametrize("hops", [0, 1, 5])
def test_a_chain_of_redirects_that_ends_inside_stops_before_it(place, http, target, hops):
    addresses = {"127.0.0.1": "127.0.0.1", "song.example": "::1"}
    network = Network(
        LOOPBACK, resolver=lambda host, port: [addresses.get(host) or resolve(host, port)[0]]
    )
    location = target.format(port=place.inside.port)
    for _ in range(hops):
        location = f"/to?url={location}"

    with pytest.raises(UrlForbidden):
        fetch(
            place, http.url(f"/to?url={location.replace('&', '%26').replace('?', '%3F')}"), network
        )
    assert len(http.seen) == hops + 1
    assert place.inside.reached == []


def test_a_21st_redirect_is_not_followed_even_where_it_may_lead(place, http, network):
    with pytest.raises(DownloadFailed, match="redirects more than 20 times"):
        fetch(place, http.url("/redirect/21/10"), network)


def test_what_lies_below_the_input_folder_is_read_and_the_canary_beside_it_is_not(place, network):
    assert (
        fetch(place, (place.input / "song.wav").as_uri(), network)
        == (place.input / "song.wav").read_bytes()
    )
    assert SECRET.encode() not in (place.beside / "fetched").read_bytes()
