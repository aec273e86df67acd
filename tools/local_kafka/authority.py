"""The certificate authority of a local node: its root, and PEM certificates.

Keys are elliptic-curve keys in PKCS #8, without a password, readable only by their owner.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """An authority whose root certificate is *folder*`/ca.pem`; its key is never stored.

    Args:
        folder: the folder of all certificates.
        name: the root's common name.
    """

    def __init__(self, folder: Path, name: str = "local Kafka authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        root = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = folder / "ca.pem"
        self._write(root, self.certificate)

    def issue(self, name: str, hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Write a certificate for *name*, a server's if *hosts*; return its path and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = self._builder(_common_name(name), key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            names: list[x509.GeneralName] = []
            for host in hosts:
                try:
                    names.append(x509.IPAddress(ipaddress.ip_address(host)))
                except ValueError:
                    names.append(x509.DNSName(host))
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate, private = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        self._write(builder, certificate)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_secret(private, pem.decode())
        return certificate, private

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=self._name,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=825),  # long after a local node is forgotten
        )

    def _write(self, builder: x509.CertificateBuilder, file: Path) -> None:
        certificate = builder.sign(self._key, hashes.SHA256())
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def write_secret(path: Path, content: str) -> None:
    """Write a file that only its owner can read (on Windows: everybody who can read the folder)."""

    def for_owner(path: str, flags: int) -> int:
        return os.open(path, flags, 0o600)

    with open(path, "w", encoding="utf-8", opener=for_owner) as file:
        file.write(content)
    path.chmod(0o600)  # an existing file keeps its mode when it is opened


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
