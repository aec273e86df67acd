import hashlib
from pathlib import Path, PurePosixPath

import pytest

from tools.environment import LocalSetupFailed
from tools.local_kafka import jars

ONE = jars.Jar(hashlib.sha256(b"one").hexdigest(), PurePosixPath("org/example/one/1.0/one-1.0.jar"))
TWO = jars.Jar(hashlib.sha256(b"two").hexdigest(), PurePosixPath("org/example/two/2.0/two-2.0.jar"))


@pytest.fixture
def libs(tmp_path: Path):
    folder = tmp_path / "libs"
    folder.mkdir()
    (folder / ONE.name).write_bytes(b"one")
    (folder / TWO.name).write_bytes(b"two")
    return folder


def test_the_committed_list_names_kafka_and_each_jar_once():
    listed = jars.listed()

    assert len({jar.name for jar in listed}) == len(listed) == 92
    assert "kafka_2.13-4.3.1.jar" in {jar.name for jar in listed}


def test_a_path_in_a_repository_tells_the_coordinate():
    assert ONE.coordinate == ("org.example", "one", "1.0")


def test_the_right_jars_pass_without_a_network(libs: Path):
    jars.assemble(libs, jars=[ONE, TWO])


def test_a_jar_with_other_bytes_is_named(libs: Path):
    (libs / TWO.name).write_bytes(b"three")

    with pytest.raises(LocalSetupFailed, match=r"two-2\.0\.jar has other bytes"):
        jars.assemble(libs, jars=[ONE, TWO])


def test_a_jar_that_nobody_listed_is_named(libs: Path):
    with pytest.raises(LocalSetupFailed, match=r"two-2\.0\.jar is not in the list"):
        jars.assemble(libs, jars=[ONE])


def test_a_missing_jar_is_named(libs: Path):
    (libs / ONE.name).unlink()

    with pytest.raises(LocalSetupFailed, match=r"one-1\.0\.jar is missing"):
        jars.check(libs, [ONE, TWO])
