"""Callbacks that no receiver may take, whatever key it verifies with."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from common import signing
from common.callback import Callback
from common.messages import Link
from tests.fixtures_edges import make_outcome
from tests.marked import CALLBACK_SECRET

ID = "msg_forged"


@dataclass(frozen=True)
class Keys:
    """The key that signs, the one that verifies, and another one that signs."""

    signs: str
    verifies: str
    other: str


def _pair(seed: bytes) -> tuple[str, str]:
    key = signing.PrivateKey(seed)
    return signing.encode("whsk_", seed), signing.encode("whpk_", key.public_bytes)


PRIVATE, PUBLIC = _pair(b"MARKEDSECRET" * 2 + b"MARKEDSE")
OTHER_PRIVATE, OTHER_PUBLIC = _pair(b"other" * 6 + b"ot")
OTHER_SECRET = "whsec_" + "QUJD" * 11
KINDS = {
    "public key": Keys(PRIVATE, PUBLIC, OTHER_PRIVATE),
    "shared secret": Keys(CALLBACK_SECRET, CALLBACK_SECRET, OTHER_SECRET),
}


@dataclass(frozen=True)
class Request:
    """The headers and the body of a callback."""

    headers: Mapping[str, str]
    body: bytes


def request(
    key: str,
    audience: str,
    *,
    task_uuid: str = "forged",
    age_seconds: float = 0,
    timestamp: str | None = None,
    header: Callable[[str], str] = lambda signed: signed,
    body: Callable[[bytes], bytes] = lambda signed: signed,
) -> Request:
    """Return a callback to *audience*; *header* and *body* change it after it is signed."""
    outcome = make_outcome(task_uuid)
    end = datetime(2026, 11, 28, 7, 5, tzinfo=UTC)
    signed = Callback.of(
        outcome, lambda name: Link(url=f"https://s3.example/{name}", expires=end), audience
    ).encode()
    moment = str(int(time.time() - age_seconds)) if timestamp is None else timestamp
    content = signing.signed_content(ID, moment, signed)
    signatures = header(signing.signatures([signing.parse_key(key)], content))
    headers = {"webhook-id": ID, "webhook-timestamp": moment, "webhook-signature": signatures}
    return Request(headers, body(signed))


def _with_hmac(keys: Keys, audience: str, version: str) -> Request:
    """Sign with the verifier's own bytes as an HMAC key: a receiver's public key is no secret."""
    prefix = keys.verifies[: keys.verifies.index("_") + 1]
    raw = signing.decode(keys.verifies, prefix)
    if prefix == "whsec_":  # there the attacker does not know them
        raw = b"\0" * len(raw)
    made = request(keys.other, audience)
    content = signing.signed_content(ID, made.headers["webhook-timestamp"], made.body)
    signature = base64.b64encode(hmac.digest(raw, content, "sha256")).decode()
    return Request({**made.headers, "webhook-signature": f"{version},{signature}"}, made.body)


def _relabelled(signed: str) -> str:
    version, _, signature = signed.partition(",")
    return f"{'v1' if version == 'v1a' else 'v1a'},{signature}"


def _elsewhere(audience: str) -> str:
    return audience.replace("127.0.0.1", "elsewhere.example")


#: By name: a request for a receiver with *keys* at the origin *audience*.
FORGERIES: Mapping[str, Callable[[Keys, str], Request]] = {
    "another key": lambda keys, audience: request(keys.other, audience),
    "for another receiver": lambda keys, audience: request(keys.signs, _elsewhere(audience)),
    "for another port": lambda keys, audience: request(keys.signs, audience[:-1]),
    "for another scheme": lambda keys, audience: request(
        keys.signs, audience.replace("http:", "https:")
    ),
    "an altered body": lambda keys, audience: request(
        keys.signs, audience, body=lambda body: body.replace(b'"forged"', b'"Forged"')
    ),
    "the audience swapped in": lambda keys, audience: request(
        keys.signs,
        _elsewhere(audience),
        body=lambda body: body.replace(_elsewhere(audience).encode(), audience.encode()),
    ),
    "an hour old": lambda keys, audience: request(keys.signs, audience, age_seconds=3600),
    "an hour ahead": lambda keys, audience: request(keys.signs, audience, age_seconds=-3600),
    **{
        f"the timestamp {timestamp[:12]!r}": (
            lambda keys, audience, timestamp=timestamp: request(  # type: ignore[misc]
                keys.signs, audience, timestamp=timestamp
            )
        )
        for timestamp in ("", "0", "soon", "1e9", "-1", "\u00b9", "9" * 5_000)
    },
    "the other version": lambda keys, audience: request(keys.signs, audience, header=_relabelled),
    "an HMAC by what is public, as v1": lambda keys, audience: _with_hmac(keys, audience, "v1"),
    "an HMAC by what is public, as v1a": lambda keys, audience: _with_hmac(keys, audience, "v1a"),
    **{
        f"the signature {garbage!r}": (
            lambda keys, audience, garbage=garbage: request(  # type: ignore[misc]
                keys.signs, audience, header=lambda _: garbage
            )
        )
        for garbage in (
            *("", " ", ",", "v1", "v1a", "v1,", "v1a,", "v1,AA==", "v1a,AA==", "v1,%", "v1a,%"),
            *("v1,\u00e9", "v1a,A", f"v1a,{'A' * 86}==", f"v1,{'A' * 43}=", "v1a," + "A" * 9_000),
        )
    },
    "half of the signature": lambda keys, audience: request(
        keys.signs, audience, header=lambda signed: signed[: len(signed) // 2]
    ),
    "another id": lambda keys, audience: _renamed(request(keys.signs, audience)),
}


def _renamed(made: Request) -> Request:
    return Request({**made.headers, "webhook-id": "msg_other"}, made.body)
