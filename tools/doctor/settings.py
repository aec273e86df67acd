"""Checks of the settings, as the services will read them, and of the .env file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

import config
from common.errors import SettingsInvalid
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding

#: Prefixes of names that libraries and scripts read, besides `config.Settings`.
READ_ELSEWHERE = (
    *("AWS_", "OTEL_", "STATUS_TOKEN", "UVR_MODEL_BASE_URL", "UVR_TEST_", "PIP_", "HTTP"),
    *("NO_PROXY", "PYTHON"),
)


def check_env_file(file: Path, environ: Mapping[str, str] = os.environ) -> Finding:
    """Check that there is a `.env`, and that something reads each of its names."""
    where = file.resolve()
    if not file.exists():
        if "KAFKA_BOOTSTRAP_SERVERS" in environ:
            return finding("env-file", "ok", f"{where} is missing; the environment has settings")
        seen = f"{where} is missing, and KAFKA_BOOTSTRAP_SERVERS is not set"
        return finding("env-file", "warning", seen)
    try:
        names = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        return finding("env-file", "fault", f"{where} cannot be read: {error}")
    known = {name.upper() for name in config.Settings.model_fields}
    known |= {f"{name}_FILE" for name in config.SECRETS}
    unknown = [
        name
        for name in names
        if name.upper() not in known and not name.upper().startswith(READ_ELSEWHERE)
    ]
    if unknown:
        seen = f"{where} sets names that nothing reads: {', '.join(unknown)}"
        return finding("env-file", "warning", seen)
    return finding("env-file", "ok", f"{where}, {len(names)} settings")


def bad(error: SettingsInvalid) -> Iterator[Finding]:
    """Yield a fault for each bad setting that *error* names."""
    for line in str(error).splitlines():
        if line != "Bad settings:":
            yield finding("settings", "fault", line)
