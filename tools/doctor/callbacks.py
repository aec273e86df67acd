"""Checks of the way to receivers: signatures, allowed addresses, connections. Sends no event."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import config
from common.deadline import Deadline, DeadlineExpired
from common.errors import UrlForbidden
from common.network import Network, printable_url
from common.outages import Outage
from common.signing import PrivateKey, parse_key
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding
from tools.terminal.words import count


def check(settings: config.Settings, callback_url: str | None) -> Iterator[Finding]:
    """Check everything about callbacks without sending one."""
    yield check_secret(settings)
    proxy_url = settings.egress["proxy_url"]
    if proxy_url:
        yield check_proxy(proxy_url)
    if callback_url is None:
        yield finding("callback-url", "skipped", "pass --callback-url URL to check a receiver")
    else:
        yield check_url(settings, callback_url)


def check_secret(settings: config.Settings) -> Finding:
    """Check that callbacks are signed."""
    keys = [parse_key(secret.get_secret_value()) for secret in settings.callback_secret]
    if not keys:
        return finding("callback-secret", "warning", "CALLBACK_SECRET is not set")
    counts = Counter("Ed25519" if isinstance(key, PrivateKey) else "HMAC" for key in keys)
    seen = " and ".join(count(number, f"{kind} key") for kind, number in counts.items())
    return finding("callback-secret", "ok", f"signed with {seen}")


def check_proxy(proxy_url: str) -> Finding:
    """Connect to the egress proxy, which every download and callback goes through."""
    parts = urlsplit(proxy_url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        return finding("egress-proxy", "fault", f"{host}:{port}: {error.strerror or error}")
    return finding("egress-proxy", "ok", f"{host}:{port} accepts connections")


def check_url(settings: config.Settings, url: str, ca_file: Path | None = None) -> Finding:
    """Send a HEAD request, which no receiver takes for an event, the way callbacks are sent."""
    network = Network(**settings.egress, ca_file=ca_file)
    where, limit = printable_url(url), Deadline(settings.callback_timeout_seconds)
    try:
        with network.request("HEAD", url, limit=limit) as response:
            status = response.status
    except UrlForbidden as error:
        return finding("callback-url", "fault", f"{where}: {error.message}")
    except Outage as error:
        return finding("callback-url", "fault", f"{where}: {error}")
    except DeadlineExpired:
        waited = f"no answer within {settings.callback_timeout_seconds:g} s"
        return finding("callback-url", "fault", f"{where}: {waited}")
    # Many receivers do not support HEAD: other errors say little about callbacks.
    is_bad = 300 <= status < 400 or status == 410 or (status >= 500 and status != 501)
    seen = f"{where}: answered {status} to HEAD; no event was sent"
    return finding("callback-url", "warning" if is_bad else "ok", seen)
