"""The settings, as the services will read them, and the file that they may come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

import config
from common.errors import SettingsInvalid
from tools.doctor import catalogue
from tools.doctor.finding import Finding

#: What the libraries and scripts read themselves, beside `config.Settings`.
_READ_ELSEWHERE = ("AWS_", "UVR_MODEL_BASE_URL", "UVR_TEST_", "PIP_", "HTTP", "NO_PROXY", "PYTHON")


def check_env_file(file: Path = Path(".env"), environ: Mapping[str, str] = os.environ) -> Finding:
    """See whether there is a `.env`, and whether somebody reads each of its names."""
    where = file.resolve()
    if not file.exists():
        is_meant = "KAFKA_BOOTSTRAP_SERVERS" in environ
        seen = f"there is no {where}; settings come from the environment{'' if is_meant else ', which has none'}"
        return (catalogue.ENV_FILE.ok if is_meant else catalogue.ENV_FILE.warning)(seen)
    try:
        names = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        return catalogue.ENV_FILE.fault(f"{where} cannot be read: {error}")
    known = {name.upper() for name in config.Settings.model_fields} | {
        f"{name}_FILE" for name in config.SECRETS
    }
    strange = [
        name
        for name in names
        if name.upper() not in known and not name.upper().startswith(_READ_ELSEWHERE)
    ]
    if strange:
        return catalogue.ENV_FILE.warning(f"{where}: nobody reads {', '.join(strange)}")
    return catalogue.ENV_FILE.ok(f"{where}, {len(names)} settings")


def bad(error: SettingsInvalid) -> Iterator[Finding]:
    """Tell each bad setting that *error* names."""
    for line in str(error).splitlines():
        if line != "Bad settings:":
            yield catalogue.SETTINGS.fault(line)
