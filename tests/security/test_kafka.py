"""A secured Kafka: who gets in, who is refused, and with which message."""

import re
import stat

import pytest

from common.administration import administrator
from common.errors import Unreachable
from common.kafka_settings import KafkaSettings
from tools.local_kafka.authority import Authority
from tools.local_kafka.broker import Broker
from tools.local_kafka.security import ADMIN, Security

#: How long a refused client keeps trying in these tests.
SECONDS = 4.0


def connect(broker, servers=None, **changed):
    """Connect as the administrator with some settings *changed*; None removes one."""
    keys = {**broker.keys.connection(ADMIN), **changed}
    given = {name: value for name, value in keys.items() if value is not None}
    with administrator(
        KafkaSettings((servers or broker.bootstrap_servers,), given), SECONDS
    ) as admin:
        return admin.list_topics()


def refused(broker, servers=None, **changed):
    with pytest.raises(Unreachable) as caught:
        connect(broker, servers, **changed)
    return str(caught.value)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Another authority's certificate, and a client certificate and key that it issued."""
    authority = Authority(tmp_path_factory.mktemp("stranger"), "another authority")
    return authority.certificate, *authority.issue(ADMIN)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_user_with_the_password_comes_in(locked_kafka, mechanism):
    connect(locked_kafka, sasl_mechanism=mechanism)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_named_and_not_shown(locked_kafka, mechanism):
    reason = refused(locked_kafka, sasl_mechanism=mechanism, sasl_plain_password="hunter2")

    assert "KAFKA_SASL_PASSWORD" in reason or "invalid credentials" in reason
    assert "hunter2" not in reason


def test_a_broker_that_expects_a_password_says_so_to_a_client_without(locked_kafka):
    assert "KAFKA_SECURITY_PROTOCOL" in refused(
        locked_kafka,
        security_protocol="SSL",
        sasl_mechanism=None,
        sasl_plain_username=None,
        sasl_plain_password=None,
    )


def test_a_mechanism_that_is_not_offered_is_named(locked_kafka):
    reason = refused(locked_kafka, sasl_mechanism="SCRAM-SHA-256")

    assert "KAFKA_SASL_MECHANISM" in reason or "UnsupportedSaslMechanismError" in reason


def test_an_authority_that_we_do_not_trust_is_named(locked_kafka, stranger):
    reason = refused(locked_kafka, ssl_cafile=str(stranger[0]))

    assert "CERTIFICATE_VERIFY_FAILED" in reason


def test_a_certificate_for_another_host_is_named(locked_kafka):
    # The same address in a spelling that the certificate does not contain.
    reason = refused(locked_kafka, servers=f"127.1:{locked_kafka.port}")

    assert "Hostname mismatch" in reason
    assert "127.1" in reason


def test_a_client_with_a_certificate_comes_in(certified_kafka):
    connect(certified_kafka)


def test_a_client_without_a_certificate_is_refused(certified_kafka):
    assert "certificate" in refused(certified_kafka, ssl_certfile=None, ssl_keyfile=None).lower()


def test_a_certificate_of_another_authority_is_refused(certified_kafka, stranger):
    reason = refused(certified_kafka, ssl_certfile=str(stranger[1]), ssl_keyfile=str(stranger[2]))

    assert "certificate unknown" in reason


def test_a_wrong_password_ends_a_service_with_3_without_a_traceback_or_a_secret_at_any_level(
    locked,
):
    wrong = {"KAFKA_SASL_PASSWORD_FILE": "", "KAFKA_SASL_PASSWORD": "hunter2-and-more"}
    quick = {"LOG_LEVEL": "TRACE", "STARTUP_TIMEOUT_SECONDS": "3"}
    processes = [locked.start(service, **wrong, **quick) for service in ("processor", "uploader")]

    for process in processes:
        assert process.exit_code() == 3
        assert re.search("KAFKA_SASL_PASSWORD|invalid credentials", process.log.splitlines()[-1])
        # The library's line at DEBUG, which contains the password, is not written at all.
        assert "with configuration" not in process.log
        assert "hunter2" not in process.log
        assert "Traceback" not in process.log


def test_a_missing_certificate_ends_a_service_with_3_and_the_reason(certified):
    missing = {"KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": "", "STARTUP_TIMEOUT_SECONDS": "3"}
    processes = [
        certified.start("processor", **missing),
        certified.start("uploader", **missing, LOG_LEVEL="TRACE"),
    ]

    for process in processes:
        assert process.exit_code() == 3
        assert "certificate" in process.log.splitlines()[-1].lower()
        assert "Traceback" not in process.log


def test_a_song_goes_through_with_certificates_and_without_the_right_to_make_topics(
    certified, world
):
    fixed = {"KAFKA_CREATE_TOPICS": "false", "CALLBACK_RETRY_DELAYS_SECONDS": "0.1"}
    rights = certified.rights(**fixed)
    certified.make_topics()
    certified.give(rights)

    certified.started("processor", **fixed)
    task_uuid = certified.order(world.url("/song.wav"))
    certified.started("uploader", **fixed)

    assert certified.outcome(task_uuid)["status"] == "succeeded"
    assert not [right for right in rights if "CREATE" in right.operations]


def test_the_script_shows_what_a_client_needs_but_no_secret(locked_kafka, shown):
    password = (locked_kafka.folder / "security" / "admin.password").read_text()

    for line in locked_kafka.keys.environ_file(ADMIN).read_text().splitlines():
        assert line in shown
    assert "KAFKA_SASL_PASSWORD_FILE=" in shown
    assert password not in shown


def test_keys_are_for_the_owners_eyes_alone(locked_kafka):
    files = [
        *(locked_kafka.folder / "security").iterdir(),
        locked_kafka.folder / "server.properties",
    ]
    public = [
        file.name
        for file in files
        if stat.S_IMODE(file.stat().st_mode) & 0o077 and file.suffix != ".crt"
    ]

    assert public == ["ca.pem"]


def test_nothing_of_a_locked_node_listens_in_the_clear(locked_kafka):
    properties = dict(
        line.split("=", 1)
        for line in (locked_kafka.folder / "server.properties").read_text().splitlines()
    )

    assert properties["listener.security.protocol.map"] == "CLIENT:SASL_SSL,CONTROLLER:SSL"
    assert properties["listener.name.controller.ssl.client.auth"] == "required"


def test_who_takes_a_locked_node_up_comes_in(locked_kafka):
    assert Broker(locked_kafka.folder).topics() is not None


@pytest.mark.parametrize("locks", [{"mutual_tls": True}, {"tls": True, "acl": True}])
def test_locks_that_do_not_go_together_are_refused(locks):
    with pytest.raises(ValueError, match="need"):
        Security(**locks)
