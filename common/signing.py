"""Keys that sign callbacks after Standard Webhooks 1.0.

A `whsec_` key is shared with the receivers (HMAC-SHA256, `v1`), so each of them could sign as well.
A `whsk_` key stays here (Ed25519, `v1a`); receivers verify with its public half, `whpk_`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SHARED, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
#: Of an Ed25519 seed, and of a public key.
ED25519_BYTES = 32


@dataclass(frozen=True)
class SharedKey:
    """A secret of ours and the receivers."""

    secret: bytes = field(repr=False)
    version = "v1"

    def sign(self, content: bytes) -> bytes:
        """Return the signature of *content*."""
        return hmac.digest(self.secret, content, "sha256")


@dataclass(frozen=True)
class PrivateKey:
    """A key of ours alone."""

    seed: bytes = field(repr=False)
    version = "v1a"

    def sign(self, content: bytes) -> bytes:
        """Return the signature of *content*."""
        return self._key.sign(content)

    @property
    def public_bytes(self) -> bytes:
        """The public half."""
        return self._key.public_key().public_bytes_raw()

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


SigningKey: TypeAlias = SharedKey | PrivateKey


def parse_key(text: str) -> SigningKey:
    """Return the key that *text* holds: `whsec_`, or `whsk_` with the seed or seed and public key.

    Raises:
        ValueError: it is invalid; the message does not repeat it.
    """
    if text.startswith(SHARED):
        secret = decode(text, SHARED)
        if not 24 <= len(secret) <= 64:
            raise ValueError(f"must encode 24 to 64 bytes after {SHARED}, not {len(secret)}")
        return SharedKey(secret)
    if text.startswith(PRIVATE):
        halves = decode(text, PRIVATE)
        if len(halves) not in {ED25519_BYTES, 2 * ED25519_BYTES}:
            raise ValueError(f"must encode 32 or 64 bytes after {PRIVATE}, not {len(halves)}")
        key = PrivateKey(halves[:ED25519_BYTES])
        if halves[ED25519_BYTES:] not in {b"", key.public_bytes}:
            raise ValueError(f"has a public half after {PRIVATE} that is not its own")
        return key
    if text.startswith(PUBLIC):
        raise ValueError(f"is a public key, for receivers; set the private one, {PRIVATE}…")
    raise ValueError(f"must begin with {SHARED} or {PRIVATE}; several are separated by spaces")


def decode(text: str, prefix: str) -> bytes:
    """Return the bytes of a key that begins with *prefix*; padding may be missing.

    Raises:
        ValueError: it is not base64; the message does not repeat it.
    """
    encoded = text.removeprefix(prefix)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        # Without the cause, whose traceback would show the key.
        raise ValueError(f"must be base64 after {prefix}") from None


def encode(prefix: str, key: bytes) -> str:
    """Return *key* as text."""
    return prefix + base64.b64encode(key).decode()


def signed_content(webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """Return the bytes that a signature is of."""
    return f"{webhook_id}.{timestamp}.".encode() + body


def signatures(keys: Iterable[SigningKey], content: bytes) -> str:
    """Return the header `webhook-signature`: a signature of *content* by each of *keys*."""
    return " ".join(f"{key.version},{base64.b64encode(key.sign(content)).decode()}" for key in keys)
