"""The way to receivers: signed, allowed and open. No event is sent to anybody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import config
from common.deadline import Deadline, DeadlineExpired
from common.errors import UrlForbidden
from common.network import Network, printable_url
from common.outages import Outage
from tools.doctor import catalogue
from tools.doctor.finding import Finding

DIAL_SECONDS = 3.0
_GONE = 410


def check(settings: config.Settings, callback_url: str | None) -> Iterator[Finding]:
    """Ask everything that can be asked without telling anybody of an outcome."""
    yield check_secret(settings)
    proxy_url = settings.egress["proxy_url"]
    if proxy_url:
        yield check_proxy(proxy_url)
    if callback_url is None:
        yield catalogue.CALLBACK_URL.skipped("give --callback-url URL to try one")
    else:
        yield check_url(settings, callback_url)


def check_secret(settings: config.Settings) -> Finding:
    """See whether callbacks are signed."""
    count = len(settings.callback_secret)
    if not count:
        return catalogue.CALLBACK_SECRET.warning("CALLBACK_SECRET is not set")
    return catalogue.CALLBACK_SECRET.ok(f"signed with {count} secret{'s' if count > 1 else ''}")


def check_proxy(proxy_url: str) -> Finding:
    """Connect to the egress proxy, which every download and callback goes through."""
    parts = urlsplit(proxy_url)
    where = f"{parts.hostname}:{parts.port or 80}"
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), DIAL_SECONDS).close()
    except OSError as error:
        return catalogue.EGRESS_PROXY.fault(f"{where}: {error.strerror or error}")
    return catalogue.EGRESS_PROXY.ok(f"{where} takes connections")


def check_url(settings: config.Settings, url: str, ca_file: Path | None = None) -> Finding:
    """Send a HEAD request by the way that callbacks go: no event, whatever it answers."""
    network = Network(**settings.egress, ca_file=ca_file)
    where = printable_url(url)
    try:
        with network.request(
            "HEAD", url, limit=Deadline(settings.callback_timeout_seconds)
        ) as response:
            return _judged(where, response.status)
    except UrlForbidden as error:
        return catalogue.CALLBACK_URL.fault(f"{where}: {error.message}")
    except Outage as error:
        return catalogue.CALLBACK_URL.fault(f"{where}: {error}")
    except DeadlineExpired:
        return catalogue.CALLBACK_URL.fault(
            f"{where}: no answer within {settings.callback_timeout_seconds:g} s"
        )


def _judged(where: str, status: int) -> Finding:
    # Many receivers know no HEAD: what they answer to it says little of what they answer to a
    # callback.
    seen = f"{where}: answered {status} to HEAD; no event was sent"
    if 300 <= status < 400 or status >= 500 or status == _GONE:
        return catalogue.CALLBACK_URL.warning(seen)
    return catalogue.CALLBACK_URL.ok(seen)
