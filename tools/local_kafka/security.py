"""A local node with its doors locked: TLS, users and their passwords, rights; and the keys to it,
as files.

Nothing of a secured node is open: its controller, too, talks TLS with certificates on both sides,
and whoever looks after the node (`Broker` itself, `kafka-acls.sh`) comes through the same door as
every client, as the user `admin`, who may do everything.

Below the node's folder, `security/` holds the authority's `ca.pem`, and for each user `<user>.crt`,
`<user>.key`, `<user>.password`, `<user>.env` (settings of the services) and `<user>.properties`
(for `--command-config` of Kafka's tools). Keys and passwords are made once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tools.local_kafka.authority import Authority, write_secret

ADMIN = "admin"
#: Who they are is in docs/security-kafka.md.
USERS = (ADMIN, "processor", "uploader", "operator")
_BROKER = "broker"
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


@dataclass(frozen=True)
class Security:
    """How a node's door is locked.

    Args:
        tls: certificates of the node, checked by its clients.
        mutual_tls: certificates of the clients, too; without *mechanisms* they say who a client is.
        mechanisms: of SASL: clients give a user's name and password; settings of clients name the
            first.
        acl: a user may do what he was given the right to, and nothing else.

    Raises:
        ValueError: they do not go together.
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
        """Take up what `dataclasses.asdict` made, also after it was JSON."""
        return cls(**{**state, "mechanisms": tuple(state.get("mechanisms", ()))})

    @property
    def on(self) -> bool:
        """Whether there is a lock at all."""
        return self.tls or bool(self.mechanisms)

    @property
    def protocol(self) -> str:
        """Kafka's name for it, as in KAFKA_SECURITY_PROTOCOL."""
        if self.mechanisms:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"


class Keys:
    """The certificates and passwords of a node, in *folder*; made when they are first asked for."""

    def __init__(self, folder: Path, security: Security, host: str) -> None:
        self._folder = folder
        self._security = security
        self._host = host

    @property
    def made(self) -> bool:
        """Whether there are any."""
        return self._store.exists()

    def make(self, bootstrap_servers: str) -> None:
        """Write what is missing, and the users' settings, which name *bootstrap_servers*, anew."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if not self.made:
            self._make_certificates()
            for user in (_BROKER, *USERS):
                write_secret(self._password_file(user), secrets.token_urlsafe(24))
            # The last to be written: an interrupted making is begun anew.
            write_secret(
                self._store, _read(self._folder / "broker.key") + _read(self._folder / "broker.crt")
            )
        for user in USERS:
            write_secret(self.environ_file(user), _lines(self.environ(user, bootstrap_servers)))
            write_secret(self.properties_file(user), _lines(self._properties(user)))

    def environ_file(self, user: str) -> Path:
        """Return the file of settings with which a service is *user*."""
        return self._folder / f"{user}.env"

    def properties_file(self, user: str) -> Path:
        """Return the file of settings with which a tool of Kafka's is *user*."""
        return self._folder / f"{user}.properties"

    def environ(self, user: str, bootstrap_servers: str) -> dict[str, str]:
        """Return the settings with which a service is *user*; secrets are named by their files."""
        security = self._security
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": security.protocol,
        }
        if security.tls:
            environ["KAFKA_SSL_CAFILE"] = str(self._folder / "ca.pem")
        if security.mutual_tls:
            environ["KAFKA_SSL_CERTFILE"] = str(self._folder / f"{user}.crt")
            environ["KAFKA_SSL_KEYFILE"] = str(self._folder / f"{user}.key")
        if security.mechanisms:
            environ["KAFKA_SASL_MECHANISM"] = security.mechanisms[0]
            environ["KAFKA_SASL_USERNAME"] = user
            environ["KAFKA_SASL_PASSWORD_FILE"] = str(self._password_file(user))
        return environ

    def connection(self, user: str) -> dict[str, Any]:
        """Return the arguments with which a client of kafka-python is *user*."""
        security = self._security
        connection: dict[str, Any] = {"security_protocol": security.protocol}
        if security.tls:
            connection["ssl_cafile"] = str(self._folder / "ca.pem")
        if security.mutual_tls:
            connection["ssl_certfile"] = str(self._folder / f"{user}.crt")
            connection["ssl_keyfile"] = str(self._folder / f"{user}.key")
        if security.mechanisms:
            password = _read(self._password_file(user))
            names = {"sasl_mechanism": security.mechanisms[0], "sasl_plain_username": user}
            connection |= {**names, "sasl_plain_password": password}
        return connection

    def server_settings(self) -> dict[str, str]:
        """Return the lines of server.properties for the listeners CLIENT and CONTROLLER."""
        security = self._security
        settings = {
            "listener.security.protocol.map": f"CLIENT:{security.protocol},CONTROLLER:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._store.as_posix(),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": (self._folder / "ca.pem").as_posix(),
            # The user of a certificate is called as the user of a password: processor, not
            # CN=processor.
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)$/$1/,DEFAULT",
            "listener.name.controller.ssl.client.auth": "required",
            "listener.name.client.ssl.client.auth": "required" if security.mutual_tls else "none",
        }
        if security.mechanisms:
            settings |= self._sasl_settings(security.mechanisms)
        if security.acl:
            settings["authorizer.class.name"] = (
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            )
            settings["super.users"] = f"User:{_BROKER};User:{ADMIN}"
        return settings

    def scram_users(self) -> list[str]:
        """Return the arguments by which StorageTool's `format` makes the users of SCRAM."""
        # All of them always: a later start may ask for another mechanism, and then nothing is
        # formatted any more.
        return [
            f"--add-scram={mechanism}=[name={user},password={_read(self._password_file(user))}]"
            for mechanism in MECHANISMS
            if mechanism != "PLAIN"
            for user in (_BROKER, *USERS)
        ]

    def _sasl_settings(self, mechanisms: Iterable[str]) -> dict[str, str]:
        enabled = list(mechanisms)
        passwords = {user: _read(self._password_file(user)) for user in (_BROKER, *USERS)}
        settings = {
            "sasl.enabled.mechanisms": ",".join(enabled),
            "sasl.mechanism.inter.broker.protocol": enabled[0],
        }
        for mechanism in enabled:
            words = [_login(mechanism, _BROKER, passwords[_BROKER])]
            if mechanism == "PLAIN":
                words += [f'user_{user}="{password}"' for user, password in passwords.items()]
            settings[f"listener.name.client.{mechanism.lower()}.sasl.jaas.config"] = (
                " ".join(words) + ";"
            )
        return settings

    def _properties(self, user: str) -> dict[str, str]:
        """Return the settings with which a tool of Kafka's is *user*."""
        security = self._security
        properties = {"security.protocol": security.protocol}
        if security.tls:
            properties["ssl.truststore.type"] = "PEM"
            properties["ssl.truststore.location"] = (self._folder / "ca.pem").as_posix()
        if security.mutual_tls:
            store = self._folder / f"{user}.pem"
            write_secret(
                store, _read(self._folder / f"{user}.key") + _read(self._folder / f"{user}.crt")
            )
            properties["ssl.keystore.type"] = "PEM"
            properties["ssl.keystore.location"] = store.as_posix()
        if security.mechanisms:
            mechanism = security.mechanisms[0]
            properties["sasl.mechanism"] = mechanism
            properties["sasl.jaas.config"] = (
                _login(mechanism, user, _read(self._password_file(user))) + ";"
            )
        return properties

    @property
    def _store(self) -> Path:
        return self._folder / "broker.pem"

    def _password_file(self, user: str) -> Path:
        return self._folder / f"{user}.password"

    def _make_certificates(self) -> None:
        authority = Authority(self._folder)
        authority.issue(_BROKER, (self._host, "localhost"))
        for user in USERS:
            authority.issue(user)


def _login(mechanism: str, user: str, password: str) -> str:
    return f'{_LOGIN_MODULES[mechanism]} required username="{user}" password="{password}"'


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
