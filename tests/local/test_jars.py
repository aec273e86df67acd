import hashlib
from pathlib import Path, PurePosixPath

import pytest

from tools.environment import LocalSetupFailed
from tools.jvm import jars
from tools.jvm.jars import JarList
from tools.local_kafka.jars import KAFKA_VERSIONS, kafka
from tools.local_s3.jars import S3PROXY

ONE = jars.Jar(hashlib.sha256(b"one").hexdigest(), PurePosixPath("org/example/one/1.0/one-1.0.jar"))
TWO = jars.Jar(hashlib.sha256(b"two").hexdigest(), PurePosixPath("org/example/two/2.0/two-2.0.jar"))


@pytest.fixture
def libs(tmp_path: Path):
    folder = tmp_path / "libs"
    folder.mkdir()
    (folder / ONE.name).write_bytes(b"one")
    (folder / TWO.name).write_bytes(b"two")
    return folder


@pytest.fixture
def wanted(tmp_path: Path):
    """Return a function that writes the list of some jars."""

    def write(*listed: jars.Jar):
        file = tmp_path / "program-1.0.sha256"
        file.write_text("".join(f"{jar.sha256}  {jar.path}\n" for jar in listed))
        return JarList("Program 1.0", file, "")

    return write


@pytest.mark.parametrize(
    ("committed", "count", "jar"),
    [
        (kafka("4.4.0"), 92, "kafka_2.13-4.4.0.jar"),
        (kafka("4.0.2"), 89, "kafka_2.13-4.0.2.jar"),
        (kafka("3.9.2"), 106, "kafka_2.13-3.9.2.jar"),
        (S3PROXY, 149, "s3proxy-4.1.0.jar"),
    ],
    ids=[*KAFKA_VERSIONS, "s3proxy"],
)
def test_the_committed_list_names_the_program_and_each_jar_once(committed, count, jar):
    listed = committed.jars()

    assert len({jar.name for jar in listed}) == len(listed) == count
    assert jar in {jar.name for jar in listed}


def test_a_path_in_a_repository_tells_the_coordinate():
    assert ONE.coordinate == ("org.example", "one", "1.0")


def test_the_right_jars_pass_without_a_network(libs: Path, wanted):
    jars.assemble(wanted(ONE, TWO), libs)


def test_a_jar_with_other_bytes_is_named(libs: Path, wanted):
    (libs / TWO.name).write_bytes(b"three")

    with pytest.raises(LocalSetupFailed, match=r"two-2\.0\.jar has other bytes"):
        jars.assemble(wanted(ONE, TWO), libs)


def test_a_jar_that_nobody_listed_is_named(libs: Path, wanted):
    with pytest.raises(LocalSetupFailed, match=r"two-2\.0\.jar is not in the list"):
        jars.assemble(wanted(ONE), libs)


def test_a_missing_jar_is_named(libs: Path, wanted):
    (libs / ONE.name).unlink()

    with pytest.raises(LocalSetupFailed, match=r"one-1\.0\.jar is missing"):
        jars.check(wanted(ONE, TWO), libs)
