"""scripts/doctor.py on a setup that works and on one that does not."""

import json
import re
from pathlib import Path

import pytest

from common.errors import SettingsInvalid
from config import Settings
from tests.marked import MARK
from tests.operations.findings import only, statuses
from tests.pipeline.scripts import run
from tests.servers import free_port
from tools.doctor import catalogue, libraries
from tools.doctor import settings as settings_checks

PAGE = Path("docs/doctor.md").read_text(encoding="utf-8")
TESTS = "".join(path.read_text(encoding="utf-8") for path in Path("tests").rglob("test_doctor*.py"))


def test_a_setup_that_works_has_no_fault(running):
    (running.folder / ".env").write_text(
        "S3_BUCKET=from-the-environment-instead\nKAFKA_BOOTSTRAP_SERVER=typo:9092\n"
    )
    before = running.keys()

    done = run(running, "doctor.py", "--json", UVR_ENV_FILE=str(running.folder / ".env"))
    found = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stdout + done.stderr
    assert {one["name"] for one in found if one["status"] == "warning"} == {
        "env-file",
        "kafka-replication",  # the only broker
        "s3-link",  # on loopback
    }
    assert len({one["name"] for one in found}) > 25
    assert all(bool(one["advice"]) == (one["status"] in {"warning", "fault"}) for one in found)
    assert running.keys() == before
    assert MARK not in done.stdout + done.stderr
    assert re.search(r"^\d+ ok, 3 warning, 0 fault, 1 skipped$", done.stderr, re.MULTILINE)


def test_lines_of_text_say_the_same(running):
    nobody = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "STARTUP_TIMEOUT_SECONDS": "1"}
    done = run(running, "doctor.py", "--service", "processor", **nobody)

    cells = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 3
    (reachable,) = [cell for cell in cells if cell[1] == "kafka-reachable"]
    assert reachable[0] == "fault"
    assert "ECONNREFUSED" in reachable[2]
    assert reachable[3] == catalogue.finding("kafka-reachable", "fault", "").advice
    assert ["ok", "separation"] in [cell[:2] for cell in cells], (
        "the rest is looked at all the same"
    )


def test_each_bad_setting_is_a_fault_and_ends_in_2(pipeline):
    bad = {"KAFKA_TOPIC_PARTITIONS": "0", "CALLBACK_SECRET": f"{MARK}-no-secret"}
    done = run(pipeline, "doctor.py", "--format", "json", **bad)

    found = [json.loads(line) for line in done.stdout.splitlines() if '"settings"' in line]
    assert done.returncode == 2
    assert [one["seen"].partition(":")[0] for one in found if one["status"] == "fault"] == [
        "KAFKA_TOPIC_PARTITIONS",
        "CALLBACK_SECRET",
    ]
    assert MARK not in done.stdout + done.stderr


def test_wrong_usage_ends_in_2(pipeline):
    done = run(pipeline, "doctor.py", "--service", "kafka")

    assert done.returncode == 2
    assert "--service" in done.stderr


def test_a_processor_alone_needs_no_bucket():
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_environ({}, "uploader")

    finding = only(settings_checks.bad(caught.value))
    assert (finding.name, finding.status) == ("settings", "fault")
    assert "S3_BUCKET" in finding.seen
    assert Settings.from_environ({}, "processor").s3_bucket is None


def test_libraries_that_are_missing_or_others_are_named(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text(
        "kafka-python==0.0.1 \\\n    --hash=sha256:0\nno-such-library==1.2\n"
        "for-others==1 ; sys_platform == 'x'\n"
    )

    missing, different = libraries.check(pins)

    assert (missing.status, different.status) == ("fault", "warning")
    assert missing.seen.endswith(": missing no-such-library 1.2")
    assert re.search(r": kafka-python [\d.]+ instead of 0.0.1$", different.seen)
    assert statuses(libraries.check()) == {"libraries": "ok"}


def test_an_env_file_is_found_or_missing_and_its_unknown_names_are_listed(tmp_path):
    file = tmp_path / ".env"
    missed = settings_checks.check_env_file(file, {})
    unneeded = settings_checks.check_env_file(file, {"KAFKA_BOOTSTRAP_SERVERS": "a:1"})
    assert ("is missing" in missed.seen, missed.status, unneeded.status) == (True, "warning", "ok")
    file.write_text(
        "KAFKA_BOOTSTRAP_SERVERS=a:1\nCALLBACK_SECRET_FILE=x\nAWS_REGION=x\nS3_BUCKETS=b\n"
        "STATUS_TOKEN=x\nOTEL_EXPORTER_OTLP_HEADERS=x\nUVR_MODEL_BASE_URL=x\n"
    )
    strange = settings_checks.check_env_file(file)
    file.write_bytes(b"S3_BUCKET=\xff\n")

    assert strange.status == "warning"
    assert strange.seen.endswith("sets names that nothing reads: S3_BUCKETS")
    assert (
        settings_checks.check_env_file(file).name,
        settings_checks.check_env_file(file).status,
    ) == (
        "env-file",
        "fault",
    )


def test_the_page_lists_every_finding_in_the_words_of_the_program():
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.split("\n## Findings\n")[1].splitlines()
        if line[:3] == "| `"
    ]

    assert rows == [
        [f"`{one.name}`", one.area, f"{one.means}", one.advice] for one in catalogue.CHECKS
    ]


def test_each_check_has_a_name():
    names = [check.name for check in catalogue.CHECKS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", [check.name for check in catalogue.CHECKS])
def test_every_finding_is_provoked_by_a_test(name):
    assert f'"{name}"' in TESTS
