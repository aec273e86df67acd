"""Checks of Kafka: its brokers and rights first, then its topics and groups."""

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
from tools.doctor import groups, topics
from tools.doctor.catalogue import finding
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
from tools.topics.groups import ask_coordinator

HIDDEN = "these credentials may not read the broker's configuration"


def check(
    settings: config.Settings, services: Collection[str], connect_seconds: float = 8
) -> Iterator[Finding]:
    """Run the checks from the outside in, and stop where a fault prevents the rest."""
    logging.getLogger("kafka").addHandler(logging.NullHandler())  # the findings say what it would
    seconds = min(connect_seconds, settings.startup_timeout_seconds)
    try:
        with administrator(settings.kafka, seconds) as admin:
            yield from _check_cluster(admin, settings, services)
    except Unreachable as error:
        yield finding("kafka-reachable", "fault", str(error))


def _check_cluster(
    admin: Administrator, settings: config.Settings, services: Collection[str]
) -> Iterator[Finding]:
    brokers = advertised(admin)
    servers = ", ".join(settings.kafka_bootstrap_servers)
    seen = f"{servers} answers with {settings.kafka_security_protocol}"
    yield finding("kafka-reachable", "ok", seen)
    addresses = list(check_advertised(brokers, settings))
    yield from addresses
    if any(one.status == "fault" for one in addresses):
        return
    needed = needed_topics(settings, services)
    # The groups that the services commit for; they may have no rights on others.
    names = settings.topology.groups("processor" if "processor" in services else "uploader")
    allowed = check_rights(admin, needed, names, create=settings.kafka_create_topics)
    yield allowed
    if allowed.status == "fault":
        return
    prefix = f"{settings.kafka_result_topic}_callback_"
    cluster = look(admin, [topic.name for topic in needed], prefix, names)
    yield check_session(cluster, settings)
    yield check_offsets_retention(cluster, settings)
    yield from topics.check(cluster, needed, settings)
    yield from groups.check(cluster, settings, services)


def check_advertised(brokers: Sequence[Broker], settings: config.Settings) -> Iterator[Finding]:
    """Connect to each advertised address: Kafka sends all clients there after the first contact."""
    hosts = [server.rpartition(":")[0] for server in settings.kafka_bootstrap_servers]
    for broker in brokers:
        seen = f"broker {broker.id} advertises {broker.host}:{broker.port}"
        problem = _connection_problem(broker, settings)
        if problem:
            yield finding("kafka-advertised", "fault", f"{seen}, which {problem}")
        elif is_loopback(broker.host) and not any(map(is_loopback, hosts)):
            seen += ", which each client takes for its own machine"
            yield finding("kafka-advertised", "warning", seen)
        else:
            yield finding("kafka-advertised", "ok", seen)


def _connection_problem(broker: Broker, settings: config.Settings) -> str | None:
    """Return why clients cannot connect; None if they can."""
    try:
        with socket.create_connection((broker.host, broker.port), timeout=3) as plain:
            if settings.kafka_security_protocol.endswith("SSL"):
                context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
                certificate, key = settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile
                if certificate is not None:
                    password = settings.kafka.security.get("ssl_password", "")
                    context.load_cert_chain(certificate, key, password)
                context.wrap_socket(plain, server_hostname=broker.host).close()
    except socket.gaierror as error:
        return f"does not resolve here: {error.strerror}"
    except ssl.SSLCertVerificationError as error:
        return f"has an invalid certificate: {error.verify_message}"
    except OSError as error:
        return f"does not answer here: {error.strerror or error}"
    return None


def is_loopback(host: str) -> bool:
    """Tell whether *host* means another machine on each machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_session(cluster: Cluster, settings: config.Settings) -> Finding:
    """Check that the broker allows our session timeout; otherwise no process can join."""
    session_ms = settings.kafka_session_timeout_ms
    min_ms, max_ms = cluster.limits.get(MIN_SESSION), cluster.limits.get(MAX_SESSION)
    if min_ms is None or max_ms is None:
        return finding("kafka-session", "skipped", HIDDEN)
    seen = f"KAFKA_SESSION_TIMEOUT_MS={session_ms}; the broker allows {min_ms} to {max_ms}"
    return finding("kafka-session", "ok" if min_ms <= session_ms <= max_ms else "fault", seen)


def check_offsets_retention(cluster: Cluster, settings: config.Settings) -> Finding:
    """Check that an empty group keeps its offsets for at least Kafka's default, 7 days."""
    minutes = cluster.limits.get(OFFSETS_RETENTION)
    if minutes is None:
        return finding("kafka-offsets-retention", "skipped", HIDDEN)
    seen = (
        f"offsets are kept for {minutes} minutes ({minutes / 1440:g} days); "
        f"KAFKA_AUTO_OFFSET_RESET={settings.kafka_auto_offset_reset}"
    )
    return finding("kafka-offsets-retention", "warning" if minutes < 10_080 else "ok", seen)


def check_rights(
    admin: Administrator, needed: Sequence[Topic], names: Sequence[str], *, create: bool
) -> Finding:
    """Check the rights that the services check at start."""
    try:
        ask_coordinator(lambda: rights.check(admin, needed, names, create=create))
    except Unreachable as error:
        return finding("kafka-rights", "fault", str(error))
    seen = f"all rights on {len(needed)} topics and {len(names)} groups"
    return finding("kafka-rights", "ok", seen)


def needed_topics(settings: config.Settings, services: Collection[str]) -> list[Topic]:
    """Return the topics that *services* need, each once."""
    both: tuple[Service, ...] = ("processor", "uploader")
    needed = (settings.topology.topics(service) for service in both if service in services)
    return list({topic.name: topic for topics in needed for topic in topics}.values())
