"""Removal of a dead process from its consumer group, before its session times out.

A rebalance, such as its successor's join, waits for every member that Kafka believes alive, up to
`KAFKA_SESSION_TIMEOUT_MS`; kafka-python delivers no records to any member during a rebalance.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from common.administration import administrator
from common.errors import ProcessError
from common.kafka_settings import client_id
from config import Settings
from tools.services.environment import settings_of
from tools.services.state_files import ServiceName


def remove_in_background(
    service: ServiceName, pid: int, folder: Path, environment: Mapping[str, str]
) -> None:
    """Remove the dead process *pid* from its group in a thread; log a failure."""
    arguments = (service, pid, settings_of(environment, folder))
    threading.Thread(target=_remove, args=arguments, name="group-removal", daemon=True).start()


def _remove(service: ServiceName, pid: int, environ: Mapping[str, str]) -> None:
    try:
        settings = Settings.from_environ(environ)
        # A static member keeps its place for its successor.
        if settings.kafka_group_instance_id is not None:
            return
        is_processor = service == "processor"
        group = settings.kafka_processor_group if is_processor else settings.kafka_uploader_group
        with administrator(settings.kafka, 20) as admin:
            members = admin.describe_groups([group])[group]["members"]
            dead = [
                MemberToRemove(member_id=one["member_id"])
                for one in members
                if one["client_id"] == client_id(pid)
            ]
            if dead:
                admin.remove_group_members(group, dead)
    except (ProcessError, KafkaError) as error:
        sys.stderr.write(
            f"Cannot remove the dead {service} {pid} from its group; it stays until its session "
            f"times out: {error}\n"
        )
