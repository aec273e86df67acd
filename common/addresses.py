"""Which hosts may be reached: names resolved within a limit, and public addresses only."""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import zip_longest

from common.errors import UrlForbidden
from common.outages import Outage
from common.pace import SLICE_SECONDS, Limit

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network
#: Returns the addresses of a host, for a port; raises OSError or UnicodeError when there are none.
Resolver = Callable[[str, int], Sequence[str]]

_NOT_GLOBAL: tuple[AddressRange, ...] = (
    # Looks public, but every Azure machine reaches its host there.
    IPv4Network("168.63.129.16/32"),
    # Protocol assignments (RFC 6890); Oracle's clouds serve metadata there.
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv6Network("2001::/23"),  # protocol assignments: Teredo, ORCHID, benchmarking (RFC 2928)
    IPv6Network("2002::/16"),  # 6to4 (RFC 3056)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
#: A host name as sent over the wire; its last label never begins with a digit (RFC 3696, 2).
_NAME = re.compile(r"(?i)(?:[a-z0-9_-]+\.)*[a-z][a-z0-9-]*\.?")
_LOCALHOST = re.compile(r"(?i)(?:.*\.)?localhost\.?")


def resolve(host: str, port: int) -> list[str]:
    """Return every IPv4 and IPv6 address of *host*, in the system's order of preference."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(address: Address) -> bool:
    """Return whether *address* belongs to the public internet, and carries no private address."""
    # `is_global` alone is not enough: CPython 3.11 passes NAT64, 6to4, Teredo, IPv4-compatible and
    # multicast addresses, all of which can carry a private IPv4 address.
    address = _unmapped(address)
    if isinstance(address, IPv6Address) and address not in IPv6Network("2000::/3"):
        return False
    special = address.is_multicast or any(address in network for network in _NOT_GLOBAL)
    return address.is_global and not special


def source_address(peer: Address, port: int) -> Address | None:
    """Return the address from which this machine would connect to *peer*; nothing is sent."""
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(peer), port or 1))
            return ipaddress.ip_address(sock.getsockname()[0])
        except OSError:  # there is no way to it; connecting says why
            return None


class AddressPolicy:
    """Resolves hosts, and forbids addresses that are not public.

    Args:
        allowed: ranges exempt from the check (ALLOWED_ADDRESSES).
        resolver: finds a host's addresses.
    """

    def __init__(self, allowed: Sequence[AddressRange], resolver: Resolver) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver

    def check(self, address: Address) -> None:
        """Raise UrlForbidden unless *address* is public or exempt."""
        if is_public(address) or self._is_exempt(address):
            return
        # The address is not named: it would show strangers what our resolver knows of the inside.
        raise UrlForbidden(
            "The URL's host is not on the public internet; "
            "the operator can allow its address with ALLOWED_ADDRESSES."
        )

    def check_route(self, own: Address | None, peer: Address) -> None:
        """Raise UrlForbidden if a connection from *own* to *peer* stays on this machine.

        A public address of this machine itself is reached over loopback, behind its firewall.
        """
        if own is None or _unmapped(own) != _unmapped(peer) or self._is_exempt(peer):
            return
        raise UrlForbidden(
            "The URL's host is the machine of the service itself; "
            "the operator can allow its address with ALLOWED_ADDRESSES."
        )

    def _is_exempt(self, address: Address) -> bool:
        return any(_unmapped(address) in network for network in self._allowed)

    def resolve(
        self, host: str, port: int, limit: Limit, max_seconds: float = float("inf")
    ) -> list[Address]:
        """Return the addresses of *host*, unchecked, and IPv6 and IPv4 in turn.

        Raises:
            UrlForbidden: *host* is not a name, so another reader could take it for an address.
            Outage: the name does not resolve now, or not within *max_seconds*.
            Cancelled, DeadlineExpired, TooSlow: from *limit*.
        """
        answers: queue.SimpleQueue[Sequence[str] | OSError | UnicodeError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolver(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        # The system's resolver takes no deadline, so it runs on its own thread.
        threading.Thread(target=ask, name="resolve", daemon=True).start()
        answer = _first(answers, limit, max_seconds)
        if answer is None or isinstance(answer, Exception):
            # Such as 127.0.0.1. or [::1%eth9].
            if not _NAME.fullmatch(host) or _LOCALHOST.fullmatch(host):
                raise UrlForbidden(
                    "The URL's host is neither a public host name nor an IP address."
                ) from answer
            raise Outage("the host name cannot be resolved") from answer
        if not answer:
            raise Outage("the host name has no address")
        return _alternating([ipaddress.ip_address(text) for text in answer])


def _first(
    answers: queue.SimpleQueue[Sequence[str] | OSError | UnicodeError],
    limit: Limit,
    max_seconds: float,
) -> Sequence[str] | OSError | UnicodeError | None:
    """Return the first of *answers*, or None when there is none within *max_seconds*."""
    end_seconds = time.monotonic() + max_seconds
    while time.monotonic() < end_seconds:
        try:
            return answers.get(timeout=min(limit.remaining_seconds(), SLICE_SECONDS))
        except queue.Empty:
            continue
    return None


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """Return *addresses* with both families in turn, as one may have no route (RFC 8305, 4)."""
    family = addresses[0].version
    preferred = [address for address in addresses if address.version == family]
    others = [address for address in addresses if address.version != family]
    pairs = zip_longest(preferred, others)
    return [address for pair in pairs for address in pair if address is not None]


def _unmapped(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one, because packets go there."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
