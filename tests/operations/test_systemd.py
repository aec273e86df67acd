"""The example systemd units."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operations.draining import draining_seconds, seconds

UNITS = Path("examples/systemd")
SERVICES = ("processor", "uploader")


def unit(service):
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.read(UNITS / f"uvr-{service}@.service", encoding="utf-8")
    return parser


def test_draining_may_take_longer_than_any_task():
    for service, needed in draining_seconds().items():
        assert seconds(unit(service)["Service"]["TimeoutStopSec"]) >= needed


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_drains_does_not_restart_with_bad_settings_and_can_write_only_data_and_logs(service):
    section = unit(service)["Service"]

    assert section["ExecStart"].endswith(f" {service}.py")
    assert (section["KillSignal"], section["RestartPreventExitStatus"]) == ("SIGTERM", "2")
    assert (section["NoNewPrivileges"], section["ProtectSystem"], section["PrivateTmp"]) == (
        "yes",
        "strict",
        "yes",
    )
    assert section["ReadWritePaths"] == "/opt/uvr/data /opt/uvr/logs"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    for service in SERVICES:
        text = (UNITS / f"uvr-{service}@.service").read_text(encoding="utf-8")
        text = text.replace("/opt/uvr/.venv/bin/python", sys.executable).replace(
            "/opt/uvr", str(tmp_path)
        )
        (tmp_path / f"uvr-{service}@1.service").write_text(text, encoding="utf-8")
    shutil.copy(UNITS / "uvr.target", tmp_path)

    units = [*map(str, tmp_path.glob("*.service")), str(tmp_path / "uvr.target")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, env=os.environ
    )

    # Older versions lack RestartSteps and restart after five seconds each time.
    problems = [
        line
        for line in verified.stderr.splitlines()
        if "uvr" in line and "Unknown key 'Restart" not in line
    ]
    assert (verified.returncode, problems) == (0, [])
