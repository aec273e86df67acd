"""Unusable TLS files are bad settings, reported before the first connection to Kafka."""

import pytest
from cryptography.hazmat.primitives import serialization

from common.errors import SettingsInvalid
from config import Settings
from tools.local_kafka.authority import Authority


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    certificate, key = authority.issue("client")
    _, other_key = authority.issue("other")
    locked = folder / "locked.key"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    return {
        "ca": str(authority.certificate),
        "certificate": str(certificate),
        "key": str(key),
        "other": str(other_key),
        "locked": str(locked),
        "missing": str(folder / "missing.pem"),
    }


def settings(files, **names):
    environ = {
        f"KAFKA_SSL_{name.upper()}": files.get(value, value) for name, value in names.items()
    }
    return Settings.from_environ({"KAFKA_SECURITY_PROTOCOL": "SSL", **environ})


@pytest.mark.parametrize(
    "names",
    [
        {"cafile": "ca"},
        {"cafile": "ca", "certfile": "certificate", "keyfile": "key"},
        {"certfile": "certificate", "keyfile": "locked", "password": "hunter2"},
    ],
)
def test_files_that_go_together_are_fine(files, names):
    settings(files, **names)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ({"cafile": "missing"}, "KAFKA_SSL_CAFILE"),
        ({"cafile": "key"}, "KAFKA_SSL_CAFILE"),
        ({"certfile": "certificate", "keyfile": "missing"}, "KAFKA_SSL_KEYFILE"),
        ({"certfile": "certificate", "keyfile": "other"}, "KAFKA_SSL_KEYFILE"),
        ({"certfile": "certificate", "keyfile": "locked"}, "KAFKA_SSL_PASSWORD"),
        (
            {"certfile": "certificate", "keyfile": "locked", "password": "hunter3"},
            "KAFKA_SSL_PASSWORD",
        ),
        ({"keyfile": "key"}, "KAFKA_SSL_CERTFILE"),
    ],
    ids=[
        "no authority",
        "a key for one",
        "no key",
        "another's key",
        "no password",
        "wrong password",
        "no certificate",
    ],
)
def test_files_that_do_not_are_named(files, names, named):
    with pytest.raises(SettingsInvalid, match=named) as caught:
        settings(files, **names)

    assert "hunter" not in str(caught.value)
