"""The findings of scripts/doctor.py on a secured Kafka."""

from config import Settings
from tests.operations.findings import by_name, only
from tools.doctor import brokers


def checked(pipeline, service):
    settings = Settings.from_environ({**pipeline.environ, **pipeline.key(service)})
    return by_name(brokers.check(settings, [service]))


def test_rights_that_are_missing_are_named_and_the_least_rights_are_enough(locked):
    refused = checked(locked, "processor")
    locked.give(locked.rights())
    with locked.broker.admin() as admin:
        letters = (f"{locked.tasks}_dlq", f"{locked.results}_dlq")
        admin.create_topics(
            {topic: {"num_partitions": 1, "replication_factor": 1} for topic in letters}
        )
    for topic in letters:
        locked.producer.send(topic, b"{}").get(30)
    allowed = [checked(locked, service) for service in ("processor", "uploader")]

    assert set(refused) == {"kafka-reachable", "kafka-advertised", "kafka-rights"}, (
        "checks that depend on rights are skipped"
    )
    assert f"READ on topic {locked.tasks}" in refused["kafka-rights"].seen
    assert [found["kafka-rights"].status for found in allowed] == ["ok", "ok"]
    assert [one.seen for found in allowed for one in found.values() if one.status == "fault"] == []
    assert [found["kafka-dead-letters"].seen for found in allowed] == [
        f"1 in {topic}" for topic in letters
    ]
    assert allowed[0]["kafka-session"].status == "skipped", (
        "a service has no right to read the broker's configuration"
    )


def test_a_wrong_password_is_named_or_suspected(locked):
    """A broker that hangs up at once leaves the client no time to read the reason."""
    environ = {**locked.environ, **locked.key("processor")}
    environ.pop("KAFKA_SASL_PASSWORD_FILE", None)
    finding = only(
        brokers.check(
            Settings.from_environ({**environ, "KAFKA_SASL_PASSWORD": "wrong"}), ["processor"], 2
        )
    )

    assert (finding.name, finding.status) == ("kafka-reachable", "fault")
    assert "KAFKA_SASL_PASSWORD" in finding.seen or "SaslAuthenticationFailed" in finding.seen
    assert "wrong" not in finding.seen
