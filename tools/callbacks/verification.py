"""What a receiver verifies: signatures after Standard Webhooks 1.0, the time, and the audience."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common import signing

#: Older and newer callbacks are refused, so that one that was recorded cannot be sent again.
TOLERANCE_SECONDS = 300


@dataclass(frozen=True)
class Verifier:
    """A key of a receiver: it verifies signatures of *version* and looks at no others."""

    version: str
    verifies: Callable[[bytes, bytes], bool]

    @classmethod
    def of(cls, text: str) -> Verifier:
        """Return the verifier of a `whpk_` or `whsec_` key, or of the public half of a `whsk_` key.

        Raises:
            ValueError: it is invalid; the message does not repeat it.
        """
        if text.startswith(signing.PUBLIC):
            return _public(signing.decode(text, signing.PUBLIC))
        if not text.startswith((signing.SHARED, signing.PRIVATE)):
            raise ValueError("must begin with whpk_, whsec_ or whsk_")
        key = signing.parse_key(text)
        if isinstance(key, signing.PrivateKey):
            return _public(key.public_bytes)

        def verifies(signature: bytes, content: bytes) -> bool:
            return hmac.compare_digest(signature, key.sign(content))

        return cls(key.version, verifies)


def _public(public: bytes) -> Verifier:
    if len(public) != signing.ED25519_BYTES:
        raise ValueError(f"must encode 32 bytes after {signing.PUBLIC}, not {len(public)}")
    key = Ed25519PublicKey.from_public_bytes(public)

    def verifies(signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    return Verifier(signing.PrivateKey.version, verifies)


def problem_of(
    headers: Mapping[str, str],
    body: bytes,
    verifiers: Sequence[Verifier],
    audiences: Collection[str],
    now: float,
) -> str | None:
    """Return why a callback is not to be believed; None when it is.

    Args:
        headers: with names in lower case.
        body: as it was received.
        verifiers: any of which may have signed.
        audiences: the origins of this receiver.
        now: the present time, in seconds since the epoch.
    """
    webhook_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    signatures = headers.get("webhook-signature")
    if not webhook_id or not timestamp or not signatures:
        return "webhook-id, webhook-timestamp or webhook-signature is missing"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return "webhook-timestamp is not a number"
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return f"webhook-timestamp differs by more than {TOLERANCE_SECONDS} s from now"
    content = signing.signed_content(webhook_id, timestamp, body)
    if not any(
        verifier.verifies(signature, content)
        for version, signature in map(_split, signatures.split(" "))
        for verifier in verifiers
        if verifier.version == version
    ):
        return "no signature is by this key"
    audience = _audience(body)
    if audience not in audiences:
        return f"it is meant for {audience}, not for {', '.join(sorted(audiences))}"
    return None


def _split(versioned: str) -> tuple[str, bytes]:
    version, _, signature = versioned.partition(",")
    try:
        return version, base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return "", b""


def _audience(body: bytes) -> str:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    audience = payload.get("audience") if isinstance(payload, dict) else None
    return audience if isinstance(audience, str) else "nobody"
