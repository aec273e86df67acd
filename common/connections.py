"""Connections that requests may use: dialled by us, and bounded by one limit at every step."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

from common.addresses import Address
from common.answers import Answer
from common.errors import UvrError
from common.http_url import HttpUrl
from common.pace import SLICE_SECONDS, Limit
from common.version import VERSION

T = TypeVar("T")
#: Returns a connected socket for a host and a port.
Dial = Callable[[str, int], socket.socket]


def connect(
    address: Address,
    port: int,
    limit: Limit,
    check: Callable[[Address, Address], None],
    *,
    within_seconds: float,
) -> socket.socket:
    """Return a socket connected to *address*, whose own address and peer *check* accepts.

    Raises:
        OSError: there is no connection *within_seconds*.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = _LimitedSocket(family, socket.SOCK_STREAM)
    try:
        sock.limit = limit
        sock.settimeout(within_seconds)
        sock.connect((str(address), port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own, peer = (
            ipaddress.ip_address(end[0]) for end in (sock.getsockname(), sock.getpeername())
        )
        check(own, peer)
    except (OSError, UvrError):
        sock.close()
        raise
    return sock


class GuardedSession(requests.Session):
    """A session for one request, inheriting nothing from the environment, following no redirects.

    Args:
        url: of the request.
        dial: makes every connection.
        limit: bounds every wait.
        ca_file: the certificate authorities to trust.
        proxies: the proxy of each scheme; empty for none.
    """

    def __init__(
        self,
        url: HttpUrl,
        *,
        dial: Dial,
        limit: Limit,
        ca_file: str,
        proxies: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.headers.clear()
        agent = f"uvr-pipeline/{VERSION}"
        self.headers.update({"User-Agent": agent, "Accept": "*/*", "Connection": "close"})
        self.verify = ca_file
        self.proxies.update(proxies)
        adapter = _GuardedAdapter(url, dial, limit)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 -- as requests has it
        """Return None: requests would read a redirect's whole body and parse its target."""
        return None


class _GuardedAdapter(HTTPAdapter):
    """Makes requests use our connections."""

    def __init__(self, url: HttpUrl, dial: Dial, limit: Limit) -> None:
        super().__init__()
        self._pool_classes = _pool_classes(url, dial)
        self._context = _LimitedTlsContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.limit = limit
        self._context.sslsocket_class = _LimitedTlsSocket
        self._guard(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:  # noqa: ANN401 -- as requests has it
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        self._guard(manager)
        return manager

    def _guard(self, manager: PoolManager) -> None:
        manager.connection_pool_kw["ssl_context"] = self._context
        manager.pool_classes_by_scheme = self._pool_classes


def _pool_classes(url: HttpUrl, dial: Dial) -> dict[str, type[HTTPConnectionPool]]:
    def exact(target: str) -> str:
        """Return the target that requests and urllib3 re-encoded, as it is in *url*."""
        return url.target if target.startswith("/") else str(url)

    class DialledConnection(HTTPConnection):
        response_class = Answer

        def _new_conn(self) -> socket.socket:
            return dial(self._dns_host, self.port)

        def putrequest(self, method: str, url: str, *args: bool, **kwargs: bool) -> None:
            super().putrequest(method, exact(url), *args, **kwargs)

    class DialledTlsConnection(HTTPSConnection):
        response_class = Answer

        def _new_conn(self) -> socket.socket:
            return dial(self._dns_host, self.port)

        def putrequest(self, method: str, url: str, *args: bool, **kwargs: bool) -> None:
            super().putrequest(method, exact(url), *args, **kwargs)

    class DialledPool(HTTPConnectionPool):
        ConnectionCls = DialledConnection

    class DialledTlsPool(HTTPSConnectionPool):
        ConnectionCls = DialledTlsConnection

    return {"http": DialledPool, "https": DialledTlsPool}


class _LimitedSocket(socket.socket):
    """Waits no longer than its limit, however few bytes come at a time."""

    limit: Limit

    def recv_into(self, *args: Any) -> int:  # noqa: ANN401 -- as the socket module has it
        return _within(self.limit, self, lambda: socket.socket.recv_into(self, *args))

    def sendall(self, *args: Any) -> None:  # noqa: ANN401 -- as the socket module has it
        self.settimeout(self.limit.remaining_seconds())
        super().sendall(*args)


class _LimitedTlsContext(ssl.SSLContext):
    """Carries the limit to its sockets, whose handshake begins inside their constructor."""

    limit: Limit


class _LimitedTlsSocket(ssl.SSLSocket):
    """A `_LimitedSocket` over TLS."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            _within(self._limit, self, lambda: ssl.SSLSocket.do_handshake(self, block))
        except UvrError:
            # CPython 3.11's constructor closes the socket on OSError and ValueError only.
            self.close()
            raise

    def recv_into(self, *args: Any) -> int:  # noqa: ANN401 -- as the ssl module has it
        return _within(self._limit, self, lambda: ssl.SSLSocket.recv_into(self, *args))

    def send(self, *args: Any) -> int:  # noqa: ANN401 -- as the ssl module has it
        self.settimeout(self._limit.remaining_seconds())
        return super().send(*args)

    @property
    def _limit(self) -> Limit:
        assert isinstance(self.context, _LimitedTlsContext)
        return self.context.limit


def _within(limit: Limit, sock: socket.socket, step: Callable[[], T]) -> T:
    """Repeat *step*, which times out after a slice, until it succeeds or *limit* ends it."""
    while True:
        sock.settimeout(min(limit.remaining_seconds(), SLICE_SECONDS))
        try:
            return step()
        except TimeoutError:
            continue
