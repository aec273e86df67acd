"""How a local node is secured: TLS, users and their passwords, rights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ADMIN = "admin"
#: docs/security-kafka.md says who they are.
USERS = (ADMIN, "processor", "uploader", "operator")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


@dataclass(frozen=True)
class Security:
    """How a node is secured.

    Args:
        tls: the node has a certificate, which its clients check.
        mutual_tls: clients have certificates too; without *mechanisms* these identify the user.
        mechanisms: of SASL, by which clients send a user's name and password; the settings for
            clients use the first.
        acl: users have only the rights they were granted.

    Raises:
        ValueError: the combination is impossible.
    """

    tls: bool = False
    mutual_tls: bool = False
    mechanisms: tuple[str, ...] = ()
    acl: bool = False

    def __post_init__(self) -> None:
        if self.mutual_tls and not self.tls:
            raise ValueError("certificates of clients need TLS")
        if self.acl and not (self.mechanisms or self.mutual_tls):
            raise ValueError("rights need users: SASL, or certificates of clients")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Create it from the output of `dataclasses.asdict`, which may have been stored as JSON."""
        return cls(**{**state, "mechanisms": tuple(state.get("mechanisms", ()))})

    @property
    def on(self) -> bool:
        """Return whether clients need anything but the address."""
        return self.tls or bool(self.mechanisms)

    @property
    def protocol(self) -> str:
        """Return Kafka's name for it, the value of KAFKA_SECURITY_PROTOCOL."""
        if self.mechanisms:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"
