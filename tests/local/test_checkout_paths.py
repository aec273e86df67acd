"""The checkout may lie anywhere: spaces, letters beyond Latin-1, and signs that files escape."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.local.test_broker import create_topic, publish, read_first, run_tool
from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT
from tools.jvm import java
from tools.jvm.distribution import Distribution
from tools.local_kafka.broker import Broker
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_kafka.keys import properties_text
from tools.local_kafka.node import DEFAULT_FOLDER
from tools.local_kafka.security import Security

#: What files and command lines of Java, shells and dotenv would each read in their own way.
ODD = "ü 🎵 #1, 50% ${HOME} 'é' = \\t"
SHARED_JARS = DEFAULT_FOLDER / f"libs-{KAFKA_VERSION}"


@pytest.fixture
def checkout(tmp_path: Path):
    """A copy of the tree in a folder of that name, in one more that must stay empty otherwise."""
    folder = tmp_path / "around" / ODD / ("long " * 40).strip() / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("common", "tools", "scripts", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("config.py", "processor.py", "uploader.py", "requirements.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    libs = folder / "data" / "kafka" / SHARED_JARS.name
    libs.mkdir(parents=True)
    for jar in SHARED_JARS.glob("*.jar"):
        os.link(jar, libs / jar.name)
    Distribution(
        java.find("Kafka"), libs
    ).archive.touch()  # no classes to archive, which takes a start
    yield folder
    Broker(folder / "data" / "kafka").stop()


def script(checkout: Path, name: str, *arguments: str, **variables: str):
    return subprocess.run(
        [sys.executable, str(checkout / "scripts" / name), *arguments],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout), **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )


@pytest.mark.skipif(os.name == "nt", reason="names with such signs")
@pytest.mark.full
def test_kafka_keeps_its_data_in_a_checkout_of_any_name(checkout: Path):
    kafka = Broker(checkout / "data" / "kafka")

    for locale in ("C.UTF-8", "POSIX"):
        port = ("--port", str(kafka.port))
        started = script(checkout, "kafka.py", "start", *port, LC_ALL=locale)
        assert started.returncode == 0, started.stderr
        if "kept" not in (kafka.topics() or {}):
            create_topic(kafka, "kept")
            publish(kafka, "kept", b"still here")
        assert read_first(kafka, "kept") == b"still here"
        listed = run_tool(kafka, "kafka-topics", "--list", env={"LC_ALL": locale})
        assert (listed.stdout.split(), listed.stderr) == (["kept"], "")
        status = script(checkout, "kafka.py", "status", "--format", "json", LC_ALL=locale)
        assert json.loads(status.stdout)["folder"] == str(checkout / "data" / "kafka")
        assert script(checkout, "kafka.py", "stop", LC_ALL=locale).returncode == 0

    written = sorted(path.name for path in checkout.parents[2].iterdir())
    assert written == [ODD]
    assert {path.name for path in (checkout / "data" / "kafka").iterdir()} >= {"data", "logs"}
    assert (checkout / "data" / "kafka" / "data" / "kept-0").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="names with such signs")
def test_a_secured_node_and_its_clients_find_their_keys_in_a_folder_of_any_name(tmp_path: Path):
    security = Security(tls=True, mutual_tls=True, mechanisms=("SCRAM-SHA-512",), acl=True)

    with Broker(tmp_path / ODD / "kafka", security=security) as kafka:
        listed = run_tool(
            kafka,
            "kafka-topics",
            *("--list", "--command-config", str(kafka.keys.properties_file("admin"))),
        )
        settings = dotenv_values(kafka.keys.environ_file("admin"))

    assert (listed.returncode, listed.stderr) == (0, "")
    assert settings == kafka.keys.environ("admin", kafka.bootstrap_servers)


def test_a_folder_whose_name_java_cannot_read_is_refused_before_anything_is_written(
    tmp_path: Path,
):
    folder = tmp_path / os.fsdecode(b"caf\xe9")

    with pytest.raises(LocalSetupFailed, match=r"caf.*UTF-8"):
        Broker(folder).start()

    assert not folder.exists()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("ü 🎵", "\\u00fc \\ud83c\\udfb5"),
        ("C:\\new\\u0041", "C:\\\\new\\\\u0041"),
        (" a # b", "\\u0020a # b"),
        ("\t\r\n", "\\u0009\\u000d\\u000a"),
    ],
)
def test_values_are_written_as_java_reads_them(value: str, written: str):
    assert properties_text({"name": value, "next": "1"}) == f"name={written}\nnext=1\n"
