"""Kafka: whether it can be reached and lets us in, and then all that is asked of its topics and
groups.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from collections.abc import Collection, Iterator, Sequence

import config
from common import rights
from common.administration import Administrator, administrator
from common.errors import Unreachable
from common.topology import Service, Topic
from tools.doctor import catalogue, groups, topics
from tools.doctor.cluster import (
    MAX_SESSION,
    MIN_SESSION,
    OFFSETS_RETENTION,
    Broker,
    Cluster,
    advertised,
    look,
)
from tools.doctor.finding import Finding
from tools.topics.reader import coordinated

CONNECT_SECONDS = 8.0
DIAL_SECONDS = 3.0
HIDDEN = "the broker's configuration may not be read with these rights"
#: Kafka's own default: 7 days.
USUAL_OFFSETS_RETENTION_MINUTES = 10_080


def check(
    settings: config.Settings, services: Collection[str], connect_seconds: float = CONNECT_SECONDS
) -> Iterator[Finding]:
    """Ask everything, from the outside in; what stands in the way of the rest ends it."""
    logging.getLogger("kafka").addHandler(
        logging.NullHandler()
    )  # what the library has to say is in our own message
    try:
        with administrator(
            settings.kafka, min(connect_seconds, settings.startup_timeout_seconds)
        ) as admin:
            yield from _inside(admin, settings, services)
    except Unreachable as error:
        yield catalogue.KAFKA_REACHABLE.fault(str(error))


def _inside(
    admin: Administrator, settings: config.Settings, services: Collection[str]
) -> Iterator[Finding]:
    brokers = advertised(admin)
    servers = ", ".join(settings.kafka_bootstrap_servers)
    yield catalogue.KAFKA_REACHABLE.ok(f"{servers} answers by {settings.kafka_security_protocol}")
    found = list(check_advertised(brokers, settings))
    yield from found
    if any(finding.status == "fault" for finding in found):
        return
    refused = list(_check_rights(admin, settings, services))
    yield from refused
    if any(finding.status == "fault" for finding in refused):
        return
    needed, prefix = _topics(settings, services), f"{settings.kafka_result_topic}_callback_"
    cluster = look(admin, [topic.name for topic in needed], prefix, _groups(settings, services))
    yield from check_session(cluster, settings)
    yield from check_offsets_retention(cluster, settings)
    yield from topics.check(cluster, needed, settings)
    yield from groups.check(cluster, settings, services)


def check_advertised(brokers: Sequence[Broker], settings: config.Settings) -> Iterator[Finding]:
    """Connect to each address that a broker names: clients are sent there, whatever address they
    began with.
    """
    far = not any(
        is_loopback(server.rpartition(":")[0]) for server in settings.kafka_bootstrap_servers
    )
    for broker in brokers:
        where = f"broker {broker.id} advertises {broker.host}:{broker.port}"
        problem = _dial(broker, settings)
        if problem:
            yield catalogue.KAFKA_ADVERTISED.fault(f"{where}, which {problem}")
        elif far and is_loopback(broker.host):
            yield catalogue.KAFKA_ADVERTISED.warning(f"{where}, which is each client's own machine")
        else:
            yield catalogue.KAFKA_ADVERTISED.ok(where)


def _dial(broker: Broker, settings: config.Settings) -> str | None:
    """Return why clients cannot go there; None when they can."""
    try:
        with socket.create_connection((broker.host, broker.port), DIAL_SECONDS) as plain:
            if settings.kafka_security_protocol.endswith("SSL"):
                _context(settings).wrap_socket(plain, server_hostname=broker.host).close()
    except socket.gaierror as error:
        return f"does not resolve here: {error.strerror}"
    except ssl.SSLCertVerificationError as error:
        return f"shows a certificate that does not hold: {error.verify_message}"
    except OSError as error:
        return f"does not answer here: {error.strerror or error}"
    return None


def _context(settings: config.Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    if settings.kafka_ssl_certfile is not None:
        password = settings.kafka.security.get("ssl_password", "")
        context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile, password)
    return context


def is_loopback(host: str) -> bool:
    """Tell whether *host* is another machine on each machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_session(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """See that the brokers let members in with our session timeout: with another, none ever joins."""
    session_ms = settings.kafka_session_timeout_ms
    min_ms, max_ms = cluster.limits.get(MIN_SESSION), cluster.limits.get(MAX_SESSION)
    if min_ms is None or max_ms is None:
        yield catalogue.KAFKA_SESSION.skipped(HIDDEN)
        return
    seen = f"KAFKA_SESSION_TIMEOUT_MS={session_ms}; the broker allows {min_ms} to {max_ms}"
    yield (
        catalogue.KAFKA_SESSION.ok
        if min_ms <= session_ms <= max_ms
        else catalogue.KAFKA_SESSION.fault
    )(seen)


def check_offsets_retention(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """See how long a group may be empty."""
    minutes = cluster.limits.get(OFFSETS_RETENTION)
    if minutes is None:
        yield catalogue.KAFKA_OFFSETS_RETENTION.skipped(HIDDEN)
        return
    seen = f"{minutes} minutes ({minutes / 1440:g} days), KAFKA_AUTO_OFFSET_RESET={settings.kafka_auto_offset_reset}"
    is_short = minutes < USUAL_OFFSETS_RETENTION_MINUTES
    yield (
        catalogue.KAFKA_OFFSETS_RETENTION.warning
        if is_short
        else catalogue.KAFKA_OFFSETS_RETENTION.ok
    )(seen)


def _check_rights(
    admin: Administrator, settings: config.Settings, services: Collection[str]
) -> Iterator[Finding]:
    needed, ours, create = (
        _topics(settings, services),
        _groups(settings, services),
        settings.kafka_create_topics,
    )
    try:
        coordinated(lambda: rights.check(admin, needed, ours, create=create))
    except Unreachable as error:
        yield catalogue.KAFKA_RIGHTS.fault(str(error))
    else:
        yield catalogue.KAFKA_RIGHTS.ok(
            f"all rights on {len(needed)} topics and {len(ours)} groups"
        )


def _topics(settings: config.Settings, services: Collection[str]) -> list[Topic]:
    """Return the topics that *services* need, each once."""
    both: tuple[Service, ...] = ("processor", "uploader")
    needed = (settings.topology.topics(service) for service in both if service in services)
    return list({topic.name: topic for topics in needed for topic in topics}.values())


def _groups(settings: config.Settings, services: Collection[str]) -> list[str]:
    """Return the groups that *services* commit for: of others they may know nothing."""
    return settings.topology.groups("processor" if "processor" in services else "uploader")
