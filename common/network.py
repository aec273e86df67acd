"""HTTP that cannot be turned against the inside: checked and pinned addresses, one deadline,
nothing inherited.

A name is resolved once, every answer is checked, the connection goes to a checked address, and the
peer is checked again; Host, SNI and the certificate stay on the name. Redirects are answers like
any other: who follows one asks again, and is checked again. Proxies, netrc and CA settings of the
environment are ignored.

With an egress proxy (EGRESS_PROXY_URL) every connection goes to it, and it resolves names itself:
the last word on addresses is then the proxy's. What we can see is checked all the same, before the
proxy hears of it.
"""

from __future__ import annotations

import ipaddress
import logging
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import certifi
import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

from common.deadline import Clock, Deadline
from common.errors import UrlForbidden, UvrError
from common.outages import Outage
from common.version import VERSION

T = TypeVar("T")
Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network
#: Returns the addresses of a host, for a port; raises OSError or UnicodeError when there are none.
Resolver = Callable[[str, int], Sequence[str]]

USER_AGENT = f"uvr-pipeline/{VERSION}"
CHUNK_BYTES = 64 * 1024
MAX_PRINTED_CHARACTERS = 200
#: A wait for the network is cut into slices of this length, so that a cancelled turn ends soon.
SLICE_SECONDS = 0.25
#: One black-holed address may not use up the time of the host's next one.
CONNECT_SECONDS = 10.0
#: Behind a proxy our own resolver may know nothing of the world, or not even answer.
LOOK_BEFORE_PROXY_SECONDS = 2.0
MAX_RETRY_AFTER_SECONDS = 86_400.0

# `is_global` alone lets through what only looks global: CPython 3.11 passes NAT64, 6to4, Teredo,
# IPv4-compatible and multicast addresses, all of which can carry a private IPv4 address inside.
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
_NOT_GLOBAL: tuple[AddressRange, ...] = (
    IPv4Network(
        "168.63.129.16/32"
    ),  # looks public, and is what every Azure machine trusts as its host
    IPv4Network(
        "192.0.0.0/24"
    ),  # protocol assignments (RFC 6890); Oracle's clouds have metadata there
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv6Network("2001::/23"),  # protocol assignments: Teredo, ORCHID, benchmarking (RFC 2928)
    IPv6Network("2002::/16"),  # 6to4 (RFC 3056)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
#: A host name as it goes over the wire; the last label of one never begins with a digit (RFC 3696,
#: 2).
_NAME = re.compile(r"(?i)(?:[a-z0-9_-]+\.)*[a-z][a-z0-9-]*\.?")
_LOCALHOST = re.compile(r"(?i)(?:.*\.)?localhost\.?")
#: How http.client says that a proxy did not open a tunnel; the proxy's own words follow, and are
#: left out.
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d+)")

# urllib3 logs whole URLs, with the query, when a header is malformed; what fails is told by our own
# errors.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class TooSlow(Outage):
    """Raised when a transfer falls below the minimum rate."""


class Limit(Protocol):
    """What bounds a transfer: a deadline, or a pace below it."""

    def remaining_seconds(self) -> float:
        """Return how long the network may keep us waiting now; raises when that is over."""


class Pace:
    """A minimum rate below a deadline, measured over one window after the other.

    Args:
        deadline: of the whole operation.
        window_seconds: how long a pause the other side may make.
        min_bytes_per_second: the rate below which a window is too slow.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        deadline: Deadline,
        *,
        window_seconds: float = 30.0,
        min_bytes_per_second: float = 1024.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._window_seconds = window_seconds
        self._least_bytes = window_seconds * min_bytes_per_second
        self._clock = clock
        self._bytes = 0
        self._window_end_seconds: float | None = None

    def count(self, size_bytes: int) -> None:
        """Count what has come; the first call starts the measurement."""
        self._bytes += size_bytes
        if self._window_end_seconds is None:
            self._open_window()

    def remaining_seconds(self) -> float:
        """Return how long the network may keep us waiting now.

        Raises:
            TooSlow: the last window brought too little.
            Cancelled, DeadlineExpired: the operation is over.
        """
        remaining_seconds = self._deadline.remaining_seconds()
        if self._window_end_seconds is None:
            return remaining_seconds
        if self._clock() >= self._window_end_seconds:
            self._check_window()
        return min(remaining_seconds, max(self._window_end_seconds - self._clock(), 0.001))

    def _check_window(self) -> None:
        if self._bytes < self._least_bytes:
            raise TooSlow(f"sent {self._bytes} bytes in {self._window_seconds:g} s")
        self._open_window()

    def _open_window(self) -> None:
        self._bytes = 0
        self._window_end_seconds = self._clock() + self._window_seconds


def resolve(host: str, port: int) -> list[str]:
    """Return every IPv4 and IPv6 address of *host*, in the system's order of preference."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(address: Address) -> bool:
    """Say whether *address* belongs to the public internet, and to nothing behind it."""
    address = _unwrapped(address)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST_6:
        return False
    special = address.is_multicast or any(address in network for network in _NOT_GLOBAL)
    return address.is_global and not special


def printable_url(url: str) -> str:
    """Return *url* as it may be shown: without userinfo, query and fragment, which can hold
    secrets.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(an unreadable URL)"
    shown = f"{parts.scheme}://{host}{parts.path}"
    return "".join(c if c.isprintable() else "?" for c in shown)[:MAX_PRINTED_CHARACTERS]


class Response:
    """An answer whose body has not been read yet."""

    def __init__(self, answer: requests.Response) -> None:
        self.status = answer.status_code
        self.headers: Mapping[str, str] = answer.headers
        self._raw = answer.raw

    def content_length_bytes(self) -> int | None:
        """Return the size that the other side announces, if it does."""
        text = self.headers.get("Content-Length", "")
        # Python refuses to read numbers of thousands of digits; nineteen are too many for any
        # limit.
        return int(text.lstrip("0")[:19] or "0") if text.isascii() and text.isdigit() else None

    def retry_after_seconds(self, now_seconds: float) -> float | None:
        """Return how long the other side asks us to wait, if it does, cut at a day.

        Args:
            now_seconds: the present moment since the epoch; Retry-After may name a date (RFC 9110,
                10.2.3).
        """
        text = self.headers.get("Retry-After", "").strip()
        seconds = (
            float(text) if text.isascii() and text.isdigit() else _seconds_until(text, now_seconds)
        )
        return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, decoded if the other side encoded it although asked not to.

        Raises:
            Outage: the body broke off.
        """
        with _foreign_errors_named():
            # read1 returns what is there; read would wait until a slow drip has filled the chunk.
            while chunk := self._raw.read1(CHUNK_BYTES, decode_content=True):
                yield chunk


class Network:
    """The one way out to URLs that strangers name.

    Args:
        allowed: ranges exempt from the check (ALLOWED_ADDRESSES).
        resolver: finds a host's addresses.
        ca_file: certificate authorities to trust instead of certifi's.
        proxy_url: the `http://` proxy that all requests go through; its userinfo is sent to it
            alone.
    """

    def __init__(
        self,
        allowed: Sequence[AddressRange] = (),
        *,
        resolver: Resolver = resolve,
        ca_file: Path | None = None,
        proxy_url: str | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._ca_file = str(ca_file or certifi.where())
        self._proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}

    @contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        limit: Limit,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Iterator[Response]:
        """Send one request and yield its answer, whatever the status; redirects are not followed.

        Raises:
            UrlForbidden: no http(s) URL with a host, or a host or an address that is not public.
            Outage: refused, reset, unresolvable, not HTTP, a certificate that does not hold.
            Cancelled, DeadlineExpired: from *limit*.
        """
        _check_url(url)
        with self._session(limit) as session:
            with _foreign_errors_named():
                answer = session.request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    data=body,
                    stream=True,
                    allow_redirects=False,
                )
            with answer:
                yield Response(answer)

    def _session(self, limit: Limit) -> requests.Session:
        session = _Session()
        session.trust_env = False
        session.headers.clear()
        session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"})
        session.verify = self._ca_file
        session.proxies.update(self._proxies)
        adapter = _GuardedAdapter(
            dial=lambda host, port: self._dial(host, port, limit),
            look=lambda url: self._look(url, limit),
            limit=limit,
        )
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def _look(self, url: str, limit: Limit) -> None:
        """Check where *url*, as it goes to the proxy, leads as far as we can see; a name unknown to
        us passes.
        """
        if not self._proxies:
            return  # the dialling itself checks
        parts = urlsplit(url)
        try:
            addresses = self._addresses(
                parts.hostname or "", parts.port or 0, limit, LOOK_BEFORE_PROXY_SECONDS
            )
        except Outage:
            return
        for address in addresses:
            self._check(address)

    def _dial(self, host: str, port: int, limit: Limit) -> socket.socket:
        """Connect to the first address of *host* that answers, once all of them are known to be
        allowed.
        """
        addresses = self._addresses(host, port, limit)
        for address in addresses:
            self._check_dialled(address)
        failures: list[OSError] = []
        for address in addresses:
            try:
                return self._connect(address, port, limit)
            except OSError as error:
                failures.append(error)
        where = " to the egress proxy" if self._proxies else ""
        raise Outage(f"no connection{where}: {_reason(failures[-1])}") from failures[-1]

    def _addresses(
        self, host: str, port: int, limit: Limit, max_seconds: float = float("inf")
    ) -> list[Address]:
        """Resolve *host* on a thread of its own, because the system's resolver knows no deadline."""
        answers: queue.SimpleQueue[Sequence[str] | OSError | UnicodeError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolver(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        answer = _take(answers, limit, max_seconds)
        if answer is None or isinstance(answer, Exception):
            # What is no name either, such as 127.0.0.1. or [::1%eth9], could be an address to
            # whoever reads it next.
            if not _NAME.fullmatch(host) or _LOCALHOST.fullmatch(host):
                raise UrlForbidden(
                    "The URL's host is neither a public name nor an address."
                ) from answer
            raise Outage("the host's name cannot be resolved") from answer
        if not answer:
            raise Outage("the host's name has no address")
        return [ipaddress.ip_address(text) for text in answer]

    def _connect(self, address: Address, port: int, limit: Limit) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = _LimitedSocket(family, socket.SOCK_STREAM)
        try:
            sock.limit = limit
            sock.settimeout(min(limit.remaining_seconds(), CONNECT_SECONDS))
            sock.connect((str(address), port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._check_dialled(ipaddress.ip_address(sock.getpeername()[0]))
        except (OSError, UvrError):
            sock.close()
            raise
        return sock

    def _check_dialled(self, address: Address) -> None:
        # Connections end at the proxy if there is one, and it was named by the operator, not by a
        # stranger.
        if not self._proxies:
            self._check(address)

    def _check(self, address: Address) -> None:
        if is_public(address) or any(_unwrapped(address) in network for network in self._allowed):
            return
        # The address itself stays unsaid: it would tell a stranger what our resolver knows of the
        # inside.
        raise UrlForbidden(
            "The URL's host is not on the public internet (ALLOWED_ADDRESSES can exempt it)."
        )


class _Session(requests.Session):
    """Leaves redirects alone; requests itself reads their whole body, however long, and parses
    their target.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 -- as requests has it
        return None


class _GuardedAdapter(HTTPAdapter):
    """Makes requests use connections that are dialled by us, after a look at where the request is
    to go.
    """

    def __init__(
        self, dial: Callable[[str, int], socket.socket], look: Callable[[str], None], limit: Limit
    ) -> None:
        super().__init__()
        self._look = look
        self._pool_classes = _pool_classes(dial)
        self._context = _LimitedTlsContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.limit = limit
        self._context.sslsocket_class = _LimitedTlsSocket
        self._guard(self.poolmanager)

    def send(  # as requests has it
        self,
        request: requests.PreparedRequest,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> requests.Response:
        self._look(request.url or "")
        return super().send(request, *args, **kwargs)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:  # noqa: ANN401 -- as requests has it
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        self._guard(manager)
        return manager

    def _guard(self, manager: PoolManager) -> None:
        manager.connection_pool_kw["ssl_context"] = self._context
        manager.pool_classes_by_scheme = self._pool_classes


def _pool_classes(dial: Callable[[str, int], socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    class DialledConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self._dns_host, self.port)

    class DialledTlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self._dns_host, self.port)

    class DialledPool(HTTPConnectionPool):
        ConnectionCls = DialledConnection

    class DialledTlsPool(HTTPSConnectionPool):
        ConnectionCls = DialledTlsConnection

    return {"http": DialledPool, "https": DialledTlsPool}


class _LimitedSocket(socket.socket):
    """Waits for the other side no longer than its limit, however little comes at a time."""

    limit: Limit

    def recv_into(self, *args: Any) -> int:  # noqa: ANN401 -- as the socket module has it
        return _patiently(self, self.limit, lambda: socket.socket.recv_into(self, *args))

    def sendall(self, *args: Any) -> None:  # noqa: ANN401 -- as the socket module has it
        self.settimeout(self.limit.remaining_seconds())
        super().sendall(*args)


class _LimitedTlsContext(ssl.SSLContext):
    """Carries the limit to its sockets, whose handshake begins inside their constructor."""

    limit: Limit


class _LimitedTlsSocket(ssl.SSLSocket):
    """The same, over TLS."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            _patiently(self, self._limit, lambda: ssl.SSLSocket.do_handshake(self, block))
        except UvrError:
            # CPython 3.11's constructor closes for errors of its own alone.
            self.close()
            raise

    def recv_into(self, *args: Any) -> int:  # noqa: ANN401 -- as the ssl module has it
        return _patiently(self, self._limit, lambda: ssl.SSLSocket.recv_into(self, *args))

    def send(self, *args: Any) -> int:  # noqa: ANN401 -- as the ssl module has it
        self.settimeout(self._limit.remaining_seconds())
        return super().send(*args)

    @property
    def _limit(self) -> Limit:
        assert isinstance(self.context, _LimitedTlsContext)
        return self.context.limit


def _patiently(sock: socket.socket, limit: Limit, step: Callable[[], T]) -> T:
    """Repeat *step*, which times out after a slice, until it is done or *limit* ends it."""
    while True:
        sock.settimeout(min(limit.remaining_seconds(), SLICE_SECONDS))
        try:
            return step()
        except TimeoutError:
            continue


def _take(answers: queue.SimpleQueue[T], limit: Limit, max_seconds: float) -> T | None:
    """Return what comes first, or None when nothing has after *max_seconds*."""
    end_seconds = time.monotonic() + max_seconds
    while time.monotonic() < end_seconds:
        try:
            return answers.get(timeout=min(limit.remaining_seconds(), SLICE_SECONDS))
        except queue.Empty:
            continue
    return None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise UrlForbidden("The URL cannot be read; send http(s)://host/path.") from error
    if not usable:
        raise UrlForbidden("Only http:// and https:// URLs with a host are requested.")


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one, for that is where packets go."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _seconds_until(date: str, now_seconds: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # a year of ten digits
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_seconds


@contextmanager
def _foreign_errors_named() -> Iterator[None]:
    """Turn what requests, urllib3 and the system raise inside the block into our own.

    Their messages repeat the URL with its query, and so may hold secrets: what leaves here, in
    message and traceback alike, is the innermost cause, which is about the socket alone.
    """
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        UnicodeError,
    ) as error:
        # UnicodeError: userinfo that Basic authentication cannot carry.
        raise UrlForbidden("The URL cannot be read; send http(s)://host/path.") from _innermost(
            error
        )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        cause = _innermost(error)
        raise Outage(f"the connection failed: {_reason(cause)}") from cause


def _innermost(error: BaseException) -> BaseException | None:
    """Return the cause at the bottom that is not about a URL, if there is one."""
    # Of a certificate's failure in a proxy's tunnel urllib3 keeps the context alone.
    for inner in (error.__cause__, error.__context__):
        if inner is not None and (found := _innermost(inner)) is not None:
            return found
    return None if _tells_url(error) else error


def _tells_url(error: BaseException) -> bool:
    return isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError))


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate does not hold ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if refused := _TUNNEL_REFUSED.match(str(error)):
        return f"the egress proxy answered {refused[1]}"
    return "broken off" if error is None else type(error).__name__
