"""HTTP requests to URLs that strangers name, which must not reach internal addresses.

A host name is resolved once, every answer is checked, the connection goes to a checked address, and
the peer is checked again; Host, SNI and the certificate keep the name. Redirects are answers like
any other: a caller that follows one makes another request, which is checked again. Proxies, netrc
and CA settings of the environment are ignored.

With an egress proxy (EGRESS_PROXY_URL) every connection goes to it, and it resolves names itself,
so it has the last word on addresses. What we can resolve is checked all the same, before the proxy
sees the request.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request

import certifi
import requests
import urllib3.exceptions

from common.addresses import Address, AddressPolicy, AddressRange, Resolver, resolve, source_address
from common.connections import GuardedSession, connect
from common.content_coding import decoded
from common.errors import UrlForbidden
from common.http_url import HttpUrl
from common.outages import Outage, Refused
from common.pace import Limit

CHUNK_BYTES = 64 * 1024

# urllib3 logs whole URLs, with the query, when a header is malformed; our own errors report it.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def printable_url(url: str) -> str:
    """Return *url* without userinfo, query and fragment, which can hold secrets, for a log."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(an unreadable URL)"
    shown = f"{parts.scheme}://{host}{parts.path}"
    return "".join(c if c.isprintable() else "?" for c in shown)[:200]


def cookie_jar() -> CookieJar:
    """Return an empty jar that gives a cookie back to the host that set it, or to its domain."""
    strict = DefaultCookiePolicy.DomainStrictNonDomain
    return CookieJar(DefaultCookiePolicy(strict_domain=True, strict_ns_domain=strict))


class Response:
    """An answer whose body has not been read yet."""

    def __init__(self, answer: requests.Response) -> None:
        self.status = answer.status_code
        self.headers: Mapping[str, str] = answer.headers
        self._raw = answer.raw

    def content_length_bytes(self) -> int | None:
        """Return the announced size of the body, if there is one."""
        text = self.headers.get("Content-Length", "")
        # Python refuses to read thousands of digits; nineteen already exceed every limit.
        return int(text.lstrip("0")[:19] or "0") if text.isascii() and text.isdigit() else None

    def retry_after_seconds(self, now_seconds: float) -> float | None:
        """Return how long Retry-After asks us to wait, at most a day; None without one.

        Args:
            now_seconds: seconds since the epoch; Retry-After may be a date (RFC 9110, 10.2.3).
        """
        text = self.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            try:
                moment = parsedate_to_datetime(text)
            except (ValueError, OverflowError):  # OverflowError: a year of ten digits
                return None
            seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_seconds
        return min(max(seconds, 0.0), 86_400.0)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives, decoded if the server encoded it unasked.

        Raises:
            Outage: the body broke off, or what it decodes to did.
            Refused: it is in an encoding that servers do not use unasked.
        """
        coding = self.headers.get("Transfer-Encoding", "").strip().lower()
        if coding not in {"", "identity", "chunked"}:
            raise Refused(
                "its server sent it with a Transfer-Encoding other than chunked, "
                "which was not asked for"
            )
        yield from decoded(self._received(), self.headers.get("Content-Encoding", ""))

    def _received(self) -> Iterator[bytes]:
        with _foreign_errors_named():
            # read1 returns what is there; read would wait until a slow server has filled a chunk.
            while chunk := self._raw.read1(CHUNK_BYTES, decode_content=False):
                yield chunk


class Network:
    """The only way to URLs that strangers name.

    Args:
        allowed: ranges exempt from the address check (ALLOWED_ADDRESSES).
        resolver: finds a host's addresses.
        ca_file: certificate authorities to trust instead of certifi's.
        proxy_url: the `http://` proxy for all requests; only the proxy receives its userinfo.
    """

    def __init__(
        self,
        allowed: Sequence[AddressRange] = (),
        *,
        resolver: Resolver = resolve,
        ca_file: Path | None = None,
        proxy_url: str | None = None,
    ) -> None:
        self._policy = AddressPolicy(allowed, resolver)
        self._ca_file = str(ca_file or certifi.where())
        self._proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}

    @contextmanager
    def request(
        self,
        method: str,
        url: str | HttpUrl,
        *,
        limit: Limit,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cookies: CookieJar | None = None,
    ) -> Iterator[Response]:
        """Send one request and yield its final answer, whatever its status.

        Args:
            method: of the request.
            url: as a stranger wrote it; it is sent byte for byte, see `HttpUrl`.
            limit: bounds every wait.
            headers: to send beside our own.
            body: to send.
            cookies: the jar whose cookies are sent, and which takes those of the answer.

        Raises:
            UrlForbidden: not an http(s) URL with a host, or its host or address is not public.
            Outage: refused, reset, unresolvable, not HTTP, an invalid certificate.
            Refused: the answer has too many headers.
            Cancelled, DeadlineExpired, TooSlow: from *limit*.
        """
        asked = HttpUrl.parse(url) if isinstance(url, str) else url
        sent = {"Host": asked.authority, "Accept-Encoding": "identity", **(headers or {})}
        if authorization := asked.authorization():
            sent["Authorization"] = authorization
        # The form of a request that http.cookiejar knows.
        with_cookies = Request(str(asked))  # noqa: S310 -- never opened
        if cookies is not None:
            cookies.add_cookie_header(with_cookies)
            sent.update(with_cookies.unredirected_hdrs)
        self._look(asked, limit)
        dialled: list[socket.socket] = []

        def dial(host: str, port: int) -> socket.socket:
            dialled.append(self._dial(host, port, limit))
            return dialled[-1]

        session = GuardedSession(
            asked,
            dial=dial,
            limit=limit,
            ca_file=self._ca_file,
            proxies=self._proxies,
        )
        try:
            with _foreign_errors_named():
                answer = session.request(
                    method,
                    str(asked),
                    headers=sent,
                    data=body,
                    stream=True,
                    allow_redirects=False,
                )
            with answer:
                if cookies is not None:
                    # It has info(), which is all that the jar uses.
                    cookies.extract_cookies(answer.raw, with_cookies)  # type: ignore[arg-type]
                yield Response(answer)
        finally:
            session.close()
            for one in dialled:
                # A socket stays open while an answer that was refused half-way refers to it.
                if (descriptor := one.detach()) >= 0:
                    socket.close(descriptor)

    def _look(self, url: HttpUrl, limit: Limit) -> None:
        """Check a *url* that goes to a proxy, as far as we can resolve its host."""
        if not self._proxies:
            return  # dialling checks it
        try:
            # At most 2 s: behind a proxy our resolver may know no public names, or not answer.
            addresses = self._policy.resolve(url.host, url.port, limit, 2.0)
        except Outage:
            return
        for address in addresses:
            self._policy.check(address)
            self._policy.check_route(source_address(address, url.port), address)

    def _dial(self, host: str, port: int, limit: Limit) -> socket.socket:
        """Connect to the first address of *host* that answers, after checking all of them."""
        addresses = self._policy.resolve(host, port, limit)
        for address in addresses:
            # Before connecting, so that not even an open port shows.
            self._check_dialled(source_address(address, port), address)
        failures: list[OSError] = []
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # Where packets vanish, the next address needs time, too.
            share_seconds = min(limit.remaining_seconds() / left, 10.0)
            try:
                return connect(
                    address, port, limit, self._check_dialled, within_seconds=share_seconds
                )
            except OSError as error:
                failures.append(error)
        where = "to the egress proxy " if self._proxies else ""
        raise Outage(f"the connection {where}failed: {_reason(failures[-1])}") from failures[-1]

    def _check_dialled(self, own: Address | None, peer: Address) -> None:
        # A proxy is named by the operator, not by a stranger.
        if not self._proxies:
            self._policy.check(peer)
            self._policy.check_route(own, peer)


@contextmanager
def _foreign_errors_named() -> Iterator[None]:
    """Turn errors of requests, urllib3 and the system inside the block into ours.

    Their messages repeat the URL with its query, which may hold secrets. Our message and traceback
    therefore show only the innermost cause, which concerns the socket.
    """
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
    ) as error:
        cause = _innermost(error)
        raise UrlForbidden("The URL is malformed; send http(s)://host/path.") from cause
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        cause = _innermost(error)
        raise Outage(f"the connection failed: {_reason(cause)}") from cause


def _innermost(error: BaseException) -> BaseException | None:
    """Return the innermost cause whose message cannot contain a URL, if there is one."""
    # urllib3 keeps a certificate failure in a proxy's tunnel as the context only.
    for inner in (error.__cause__, error.__context__):
        if inner is not None and (found := _innermost(inner)) is not None:
            return found
    shows_url = isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError))
    return None if shows_url else error


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is invalid ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # http.client appends the proxy's own words to this, which are left out.
    if refused := re.match(r"Tunnel connection failed: (\d+)", str(error)):
        return f"the egress proxy answered {refused[1]}"
    return "it broke off" if error is None else type(error).__name__
