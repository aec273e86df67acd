"""Kafka: whether it can be reached and lets us in, and then all that is asked of its topics and groups."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterator, Sequence

import config
import processor
import uploader
from common import rights
from common.errors import Unreachable
from common.kafka_clients import Administrator, Topic, administrator
from common.retries import retry_topics
from scripts.checks import catalogue, groups, topics
from scripts.checks.cluster import Broker, Cluster, advertised, look
from scripts.checks.finding import Finding
from scripts.topics.reader import coordinated

CONNECT_SECONDS = 8.0
DIAL_SECONDS = 3.0
#: Kafka's own default: 7 days.
USUAL_OFFSETS_RETENTION_MINUTES = 10_080


def check(
    settings: config.Settings, services: Collection[str], connect_seconds: float = CONNECT_SECONDS
) -> Iterator[Finding]:
    """Ask everything, from the outside in; what stands in the way of the rest ends it."""
    logging.getLogger("kafka").addHandler(logging.NullHandler())  # what the library has to say is in our own message
    try:
        with administrator(settings.kafka, connect_seconds) as admin:
            yield from _inside(admin, settings, services)
    except Unreachable as error:
        yield catalogue.KAFKA_REACHABLE.fault(str(error))


def _inside(admin: Administrator, settings: config.Settings, services: Collection[str]) -> Iterator[Finding]:
    brokers = advertised(admin)
    servers = ", ".join(settings.kafka_bootstrap_servers)
    yield catalogue.KAFKA_REACHABLE.ok(f"{servers} answers by {settings.kafka_security_protocol}")
    found = list(check_advertised(brokers))
    yield from found
    if any(finding.status == "fault" for finding in found):
        return
    refused = list(_check_rights(admin, settings, services))
    yield from refused
    if any(finding.status == "fault" for finding in refused):
        return
    needed = _topics(settings, services)
    cluster = look(
        admin, [topic.name for topic in needed], f"{settings.kafka_result_topic}_callback_", _groups(settings)
    )
    yield from check_offsets_retention(cluster, settings)
    yield from topics.check(cluster, needed, settings)
    yield from groups.check(cluster, settings, services)


def check_advertised(brokers: Sequence[Broker], dial_seconds: float = DIAL_SECONDS) -> Iterator[Finding]:
    """Connect to each address that a broker names: clients are sent there, whatever address they began with."""
    for broker in brokers:
        where = f"broker {broker.id} advertises {broker.host}:{broker.port}"
        try:
            socket.create_connection((broker.host, broker.port), dial_seconds).close()
        except socket.gaierror as error:
            yield catalogue.KAFKA_ADVERTISED.fault(f"{where}, which does not resolve here: {error.strerror}")
        except OSError as error:
            yield catalogue.KAFKA_ADVERTISED.fault(f"{where}, which does not answer here: {error.strerror or error}")
        else:
            yield catalogue.KAFKA_ADVERTISED.ok(where)


def check_offsets_retention(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """See how long a group may be empty."""
    minutes = cluster.offsets_retention_minutes
    if minutes is None:
        yield catalogue.KAFKA_OFFSETS_RETENTION.skipped("the broker's configuration may not be read with these rights")
        return
    seen = f"{minutes} minutes ({minutes / 1440:g} days), KAFKA_AUTO_OFFSET_RESET={settings.kafka_auto_offset_reset}"
    is_short = minutes < USUAL_OFFSETS_RETENTION_MINUTES
    yield (catalogue.KAFKA_OFFSETS_RETENTION.warning if is_short else catalogue.KAFKA_OFFSETS_RETENTION.ok)(seen)


def _check_rights(admin: Administrator, settings: config.Settings, services: Collection[str]) -> Iterator[Finding]:
    needed, create = _topics(settings, services), settings.kafka_create_topics
    try:
        coordinated(lambda: rights.check(admin, needed, _groups(settings), create=create))
    except Unreachable as error:
        yield catalogue.KAFKA_RIGHTS.fault(str(error))
    else:
        yield catalogue.KAFKA_RIGHTS.ok(f"all rights on {len(needed)} topics and {len(_groups(settings))} groups")


def _topics(settings: config.Settings, services: Collection[str]) -> list[Topic]:
    """Return the topics that *services* need, each once."""
    retries = retry_topics(settings.kafka_result_topic, settings.callback_retry_delays_seconds)
    of_processor = processor.topics(settings) if "processor" in services else []
    of_uploader = uploader.topics(settings, retries) if "uploader" in services else []
    return list({topic.name: topic for topic in (*of_processor, *of_uploader)}.values())


def _groups(settings: config.Settings) -> list[str]:
    return [settings.kafka_processor_group, settings.kafka_uploader_group]
