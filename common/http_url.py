"""URLs of http(s) requests, read once and sent as given.

What is checked, connected to and sent comes from one reading of the URL, so no second parser can
see another host in it. The request has the bytes of the URL, because signatures are over bytes. As
curl does it, only dot segments and the fragment are left out, and what may not stand in a request
is quoted: spaces and everything outside ASCII, as UTF-8.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_to_bytes

import idna

from common.errors import UrlForbidden

_URL = re.compile(r"(?is)(https?)://([^/?#]*)([^#]*)")
_SCHEME = re.compile(r"(?i)[a-z][a-z0-9+.-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"(?i)[a-z0-9_-][a-z0-9._-]*")
#: An IPv4 address as inet_aton reads it: one to four decimal, octal or hexadecimal numbers.
_NUMBERS = re.compile(r"(?i)(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HttpUrl:
    """An http(s) URL; `str` gives it without userinfo and fragment.

    Args:
        scheme: `http` or `https`.
        host: a name in ASCII, or an address in its usual form.
        port: never 0.
        target: path and query as they are sent; begins with a slash.
        userinfo: as it was written; empty when there is none.
    """

    scheme: str
    host: str
    port: int
    target: str
    userinfo: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> HttpUrl:
        """Read *text*.

        Raises:
            UrlForbidden: it is not an http(s) URL with a host, or parsers disagree about its host.
        """
        match = _URL.fullmatch(text.partition("#")[0])
        if not match or not match[2]:
            raise UrlForbidden("The URL must begin with http:// or https:// and name a host.")
        try:
            return cls._of(match[1].lower(), match[2], match[3])
        except ValueError as error:
            raise UrlForbidden("The URL is malformed; send http(s)://host/path.") from error

    @classmethod
    def _of(cls, scheme: str, authority: str, rest: str) -> HttpUrl:
        if _CONTROL.search(authority + rest):
            raise ValueError("control characters")
        if "\\" in authority:
            raise ValueError("browsers end the host at a backslash, others do not")
        userinfo, _, place = authority.rpartition("@")
        host, digits = _host_and_port(place)
        port = int(digits) if digits else _DEFAULT_PORTS[scheme]
        if not 0 < port < 65_536:
            raise ValueError("port out of range")
        path, mark, query = rest.partition("?")
        target = _quoted(_without_dot_segments(path or "/") + mark + query)
        return cls(scheme, host, port, target, userinfo)

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the scheme's own: the request's Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _DEFAULT_PORTS[self.scheme]
        return host if is_default else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port as a browser writes an origin (WHATWG URL)."""
        mapped = ipaddress.IPv6Address(self.host).ipv4_mapped if ":" in self.host else None
        if mapped is None:
            return f"{self.scheme}://{self.authority.lower()}"
        # Browsers write all of it in hexadecimal; Python does so only before 3.13.
        high, low = divmod(int(mapped), 1 << 16)
        authority = self.authority.replace(self.host, f"::ffff:{high:x}:{low:x}")
        return f"{self.scheme}://{authority}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def authorization(self) -> str | None:
        """Return the header Authorization for the URL's userinfo, if there is any."""
        user, _, password = self.userinfo.partition(":")
        if not user and not password:
            return None
        credentials = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        return f"Basic {base64.b64encode(credentials).decode()}"

    def join(self, location: str) -> HttpUrl:
        """Return the URL to which *location*, as http.client gives a header, leads from this one.

        It has no userinfo of this one, because credentials are for the first host only.

        Raises:
            UrlForbidden: it is malformed, or leads to another scheme.
        """
        # http.client decodes headers as Latin-1, but they are bytes, mostly UTF-8.
        text = location.strip(" \t").encode("latin-1").decode("utf-8", "surrogateescape")
        reference = text.partition("#")[0]
        path, mark, query = reference.partition("?")
        # Curl sends spaces in the query of a Location in this way.
        reference = path + mark + query.replace(" ", "+")
        base = self.target.partition("?")[0]
        if _SCHEME.match(reference):
            return HttpUrl.parse(reference)
        if reference.startswith("//"):
            return HttpUrl.parse(f"{self.scheme}:{reference}")
        if not reference:
            target = self.target
        elif reference.startswith("/"):
            target = reference
        elif reference.startswith("?"):
            target = base + reference
        else:
            target = base[: base.rindex("/") + 1] + reference
        return HttpUrl.parse(f"{self.scheme}://{self.authority}{target}")


def _host_and_port(place: str) -> tuple[str, str]:
    """Return the host and the digits of the port in *place*, which is an authority's last part."""
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{0,5}))?", place)
    if bracketed:
        return str(ipaddress.IPv6Address(bracketed[1])), bracketed[2] or ""
    split = re.fullmatch(r"([^:\[\]]+)(?::([0-9]{0,5}))?", place)
    if not split:
        raise ValueError("not a host and a port")
    host = unquote(split[1], errors="strict")
    if len(host) > 253:
        raise ValueError("longer than a host name may be")
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    if _NUMBERS.fullmatch(host):
        host = socket.inet_ntoa(_packed(host))
    if not _NAME.fullmatch(host):
        raise ValueError("not a host name")
    return host, split[2] or ""


def _packed(numbers: str) -> bytes:
    try:
        return socket.inet_aton(numbers)
    except OSError as error:
        raise ValueError("not an IPv4 address") from error


def _without_dot_segments(path: str) -> str:
    """Return *path* as RFC 3986 (5.2.4) resolves it; an encoded dot is no dot."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _quoted(target: str) -> str:
    """Return *target* with what may not stand in a request percent-encoded."""
    octets = target.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if 0x20 < octet < 0x7F else f"%{octet:02X}" for octet in octets)
