"""The environment of each instance: what must differ between instances of one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from tools.services.state_files import Instance, ServiceName

#: Uploaders' metrics ports begin this far above those of processors.
UPLOADERS_OFFSET = 100


def metrics_port(base: int, service: ServiceName, number: int) -> int:
    """Return the metrics port of an instance, where *base* is METRICS_PORT."""
    return base + (UPLOADERS_OFFSET if service == "uploader" else 0) + number - 1


def settings_of(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the variables that a service started in *folder* sees: `.env` fills the gaps."""
    file = environment.get("UVR_ENV_FILE") or folder / ".env"
    values = {**dotenv_values(file), **environment}
    return {name: value for name, value in values.items() if value is not None}


def environment_of(one: Instance, environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of the instance *one*."""
    environ = dict(environment)
    # With a shared id, each instance would throw the previous one out of the group.
    if environ.get("KAFKA_GROUP_INSTANCE_ID"):
        environ["KAFKA_GROUP_INSTANCE_ID"] += f"-{one.name}"
    base = settings_of(environment, folder).get("METRICS_PORT", "")
    if base.isdecimal() and int(base) > 0:
        environ["METRICS_PORT"] = str(metrics_port(int(base), one.service, one.number))
    return environ
