"""Takes a member that died out of its group, so that nobody waits until its session has run out.

A rebalance, such as its successor's joining begins, waits for every member that Kafka still takes
for alive, for `KAFKA_SESSION_TIMEOUT_MS`; and in kafka-python nobody is given a record while one
goes on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from common.administration import administrator
from common.errors import ProcessError
from common.kafka_settings import client_id
from config import Settings
from tools.services.board import ServiceName

TIMEOUT_SECONDS = 20.0


def announce(service: ServiceName, pid: int, folder: Path, environment: Mapping[str, str]) -> None:
    """Tell Kafka, in the background, that the process *pid* is no more."""
    values = {**dotenv_values(folder / ".env"), **environment}
    environ = {name: value for name, value in values.items() if value is not None}
    threading.Thread(
        target=_announce, args=(service, pid, environ), name="departure", daemon=True
    ).start()


def _announce(service: ServiceName, pid: int, environ: Mapping[str, str]) -> None:
    try:
        settings = Settings.from_environ(environ)
        # A static member's place is kept for its successor.
        if settings.kafka_group_instance_id is None:
            _remove(settings, service, pid)
    except (ProcessError, KafkaError) as error:
        sys.stderr.write(
            f"{service} {pid} could not be taken out of its group before its session ends: {error}\n"
        )


def _remove(settings: Settings, service: ServiceName, pid: int) -> None:
    group = (
        settings.kafka_processor_group if service == "processor" else settings.kafka_uploader_group
    )
    with administrator(settings.kafka, TIMEOUT_SECONDS) as admin:
        members = admin.describe_groups([group])[group]["members"]
        dead = [
            MemberToRemove(member_id=one["member_id"])
            for one in members
            if one["client_id"] == client_id(pid)
        ]
        if dead:
            admin.remove_group_members(group, dead)
