"""Certificates and passwords of a secured local node, as files, and settings that use them.

Nothing of a secured node is open: its controller requires TLS with certificates on both sides, and
administration (`Broker` itself, `kafka-acls.sh`) uses the same listener as every client, as the
superuser `admin`.

The folder `security/` in the node's folder holds the authority's `ca.pem`, and for each user
`<user>.crt`, `<user>.key`, `<user>.password`, `<user>.env` (settings of the services) and
`<user>.properties` (for `--command-config` of Kafka's tools). Keys and passwords are created once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.local_kafka.authority import Authority, write_secret
from tools.local_kafka.security import USERS, Security

BROKER = "broker"


class Keys:
    """The certificates and passwords in *folder* of a node on *host*."""

    def __init__(self, folder: Path, security: Security, host: str) -> None:
        self.security = security
        self.authority = folder / "ca.pem"
        #: The node's key and certificate.
        self.store = folder / "broker.pem"
        self._folder = folder
        self._host = host

    def make(self, bootstrap_servers: str) -> None:
        """Create them if they are missing, and write the settings of each user."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if not self.store.exists():
            authority = Authority(self._folder)
            authority.issue(BROKER, (self._host, "localhost"))
            for user in USERS:
                authority.issue(user)
            for user in (BROKER, *USERS):
                write_secret(self._password_file(user), secrets.token_urlsafe(24))
            # The last file: after an interruption all of them are created again.
            write_secret(self.store, self._key_and_certificate(BROKER))
        for user in USERS:
            environ = self.environ(user, bootstrap_servers)
            write_secret(self.environ_file(user), environ_text(environ))
            properties = {"security.protocol": self.security.protocol}
            if self.security.tls:
                properties["ssl.truststore.type"] = "PEM"
                properties["ssl.truststore.location"] = self.authority.as_posix()
            if self.security.mutual_tls:
                store = self._folder / f"{user}.pem"
                write_secret(store, self._key_and_certificate(user))
                properties["ssl.keystore.type"] = "PEM"
                properties["ssl.keystore.location"] = store.as_posix()
            if self.security.mechanisms:
                mechanism, password = self.security.mechanisms[0], _read(self._password_file(user))
                properties["sasl.mechanism"] = mechanism
                properties["sasl.jaas.config"] = login(mechanism, user, password) + ";"
            write_secret(self.properties_file(user), properties_text(properties))

    def environ_file(self, user: str) -> Path:
        """Return the file of settings with which a service connects as *user*."""
        return self._folder / f"{user}.env"

    def properties_file(self, user: str) -> Path:
        """Return the file of settings with which Kafka's tools connect as *user*."""
        return self._folder / f"{user}.properties"

    def environ(self, user: str, bootstrap_servers: str) -> dict[str, str]:
        """Return the settings with which a service connects as *user*; the password as a file."""
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": self.security.protocol,
        }
        if self.security.tls:
            environ["KAFKA_SSL_CAFILE"] = str(self.authority)
        if self.security.mutual_tls:
            environ["KAFKA_SSL_CERTFILE"] = str(self._folder / f"{user}.crt")
            environ["KAFKA_SSL_KEYFILE"] = str(self._folder / f"{user}.key")
        if self.security.mechanisms:
            environ["KAFKA_SASL_MECHANISM"] = self.security.mechanisms[0]
            environ["KAFKA_SASL_USERNAME"] = user
            environ["KAFKA_SASL_PASSWORD_FILE"] = str(self._password_file(user))
        return environ

    def connection(self, user: str) -> dict[str, Any]:
        """Return the arguments with which a client of kafka-python connects as *user*."""
        connection: dict[str, Any] = {"security_protocol": self.security.protocol}
        if self.security.tls:
            connection["ssl_cafile"] = str(self.authority)
        if self.security.mutual_tls:
            connection["ssl_certfile"] = str(self._folder / f"{user}.crt")
            connection["ssl_keyfile"] = str(self._folder / f"{user}.key")
        if self.security.mechanisms:
            connection["sasl_mechanism"] = self.security.mechanisms[0]
            connection["sasl_plain_username"] = user
            connection["sasl_plain_password"] = _read(self._password_file(user))
        return connection

    def passwords(self) -> dict[str, str]:
        """Return the passwords of the node itself and of all users."""
        return {user: _read(self._password_file(user)) for user in (BROKER, *USERS)}

    def _password_file(self, user: str) -> Path:
        return self._folder / f"{user}.password"

    def _key_and_certificate(self, user: str) -> str:
        return _read(self._folder / f"{user}.key") + _read(self._folder / f"{user}.crt")


def login(mechanism: str, user: str, password: str) -> str:
    """Return the beginning of a JAAS configuration."""
    module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    return (
        f"org.apache.kafka.common.security.{module} required "
        f'username="{user}" password="{password}"'
    )


def properties_text(settings: Mapping[str, str]) -> str:
    """Return *settings* as a Java properties file, in ASCII: Java reads such a file as Latin-1."""
    return "".join(f"{name}={_java_value(value)}\n" for name, value in settings.items())


def environ_text(settings: Mapping[str, str]) -> str:
    """Return *settings* as lines of a .env file, quoted where python-dotenv needs it."""
    return "".join(f"{name}={_environ_value(value)}\n" for name, value in settings.items())


def _java_value(value: str) -> str:
    """Escape *value* after java.util.Properties: UTF-16, and no blank at the beginning."""
    escaped = value.replace("\\", "\\\\")
    return re.sub(
        r"^ |[^ -~]",
        lambda found: re.sub("....", r"\\u\g<0>", found[0].encode("utf-16-be").hex()),
        escaped,
    )


def _environ_value(value: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]*", value, re.ASCII):
        return value
    # An empty name, whose default it is: python-dotenv would replace a ${NAME} of the value.
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "${:-$}{")
    return f"'{escaped}'"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
