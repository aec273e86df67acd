"""The launchers of Kafka's tools run what its jars have, wherever that version keeps it."""

import subprocess

import pytest

from tools.local_kafka import launchers
from tools.local_kafka.jars import KAFKA_VERSIONS
from tools.local_kafka.node import DEFAULT_FOLDER


@pytest.mark.parametrize("version", KAFKA_VERSIONS)
def test_each_version_has_all_tools(version):
    libs = DEFAULT_FOLDER / f"libs-{version}"
    if not libs.is_dir():
        pytest.skip(f"Kafka {version} was not downloaded")

    newer = {"kafka-groups"} if version.startswith("3.") else set()
    assert set(launchers.main_classes(libs)) == set(launchers.TOOLS) - newer


@pytest.mark.parametrize("tool", ["kafka-configs", "kafka-dump-log"])
def test_a_tool_that_has_moved_starts(kafka, tool):
    done = subprocess.run(
        [kafka.folder / "bin" / f"{tool}.sh", "--help"], capture_output=True, text=True, timeout=60
    )

    assert "--help" in done.stdout + done.stderr
