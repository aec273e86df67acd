"""URLs and answers: the product connects only to allowed addresses, and every error has a code.

Names resolve to a listener on the only allowed address; addresses resolve to themselves, and none
of them is allowed. The listener sends generated answers, among them redirects to generated URLs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from common.addresses import is_public
from common.callback import Callbacks
from common.download import Downloader
from common.errors import TaskError
from common.messages import Task
from common.network import Network
from common.outages import Backoff
from tests.fixtures_edges import link, make_outcome
from tools.fuzz import examples
from tools.fuzz.listener import Listener, Watch
from tools.fuzz.url_inputs import Exchange, inputs

ALLOWED = "127.0.0.1"
TIMEOUT_SECONDS = 0.5
MAX_BYTES = 1000
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
PLACE = Path(_FOLDER.name)
#: One watch for all inputs, and none before the first: Python cannot remove its hook.
_watch = cache(Watch)


def fuzz(seed: int, count: int) -> int:
    """Try *count* URLs; see `tools.fuzz`."""

    def show(exchange: Exchange) -> bytes:
        return f"{exchange!r}\n".encode("utf-8", "backslashreplace")

    return examples.run(inputs(), check, show, seed=seed, count=count)


def check(exchange: Exchange) -> None:
    """Download from the URL, and send a callback to it.

    Raises:
        AssertionError: a promise is broken. So does any error that is not a TaskError.
    """
    for act in (_download, _call_back):
        with Listener(exchange.answers) as listener:
            place = PLACE.as_posix()
            url = exchange.url.replace("{input}", place).replace("{beside}", place)
            url = url.replace("{port}", str(listener.port))
            proxy = f"http://proxy.example:{listener.port}" if exchange.through_proxy else None
            network = Network([ipaddress.ip_network(ALLOWED)], resolver=_resolve, proxy_url=proxy)
            watch = _watch(ALLOWED)
            with watch.over_this_thread(), contextlib.suppress(TaskError):
                act(url, network)
            requests = [*listener.requests]
        assert watch.forbidden == [], "a connection to a forbidden address"
        for request in requests if proxy else ():
            named = re.match(rb"(?:CONNECT |[A-Z]+ http://)(\[[^\]]*\]|[^/:?# ]*)", request)
            assert named is not None, f"the proxy cannot parse {request[:80]!r}"
            for address in _addresses(named[1].decode().strip("[]")):
                ip = ipaddress.ip_address(address)
                assert is_public(ip), f"the proxy was asked for {address}"


def _download(url: str, network: Network) -> None:
    task = Task.decode(json.dumps({"task_uuid": "a", "audio_url": url}).encode())
    limits: dict[str, Any] = {
        "timeout_seconds": TIMEOUT_SECONDS,
        "max_bytes": MAX_BYTES,
        "backoff": Backoff(0, 0),
    }

    def progress(percent: int) -> None:
        assert 0 <= percent <= 100

    destination = PLACE / "source"
    destination.unlink(missing_ok=True)
    try:
        Downloader(network, **limits, input_dir=PLACE).fetch(
            task.audio_url, destination, progress=progress, cancelled=threading.Event()
        )
    finally:
        assert not destination.exists() or destination.stat().st_size <= MAX_BYTES
        assert {path.name for path in PLACE.iterdir()} <= {"source"}


def _call_back(url: str, network: Network) -> None:
    task = Task.decode(
        json.dumps({"task_uuid": "a", "audio_url": "x", "callback_url": url}).encode()
    )
    Callbacks(network, [], TIMEOUT_SECONDS).send(task.callback_url or "", make_outcome(), link)


def _resolve(host: str, _port: int) -> list[str]:
    """Resolve names and public addresses to the listener, other addresses to themselves."""
    found = _addresses(host)
    if not found and not re.fullmatch(r"(?i)(song|proxy)\.example\.?", host):
        raise OSError("Name or service not known")
    inside = [address for address in found if not is_public(ipaddress.ip_address(address))]
    # 127.0.0.1 becomes another loopback address, so that only names reach the listener.
    return ["127.0.0.2" if one.endswith(ALLOWED) else one for one in inside] or [ALLOWED]


def _addresses(host: str) -> list[str]:
    """Return the addresses that *host* spells; none if it is a name."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(info[4][0]) for info in infos]
