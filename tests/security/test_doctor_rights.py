"""What scripts/doctor.py says where Kafka's door is locked."""

from config import Settings
from scripts.checks import brokers
from tests.operations.findings import by_name, only


def test_rights_that_are_missing_are_named_and_those_of_the_services_are_enough(locked):
    def settings(user):
        return Settings.from_environ({**locked.environ, **locked.key(user)})

    refused = by_name(brokers.check(settings("processor"), ["processor"]))
    locked.give(locked.rights())
    allowed = by_name(brokers.check(settings("processor"), ["processor"]))

    assert set(refused) == {"kafka-reachable", "kafka-advertised", "kafka-rights"}, "what hangs on them is not asked"
    assert f"READ on topic {locked.tasks}" in refused["kafka-rights"].seen
    assert allowed["kafka-rights"].status == "ok"


def test_a_wrong_password_is_suspected(locked):
    environ = {**locked.environ, **locked.key("processor")}
    environ.pop("KAFKA_SASL_PASSWORD_FILE", None)
    finding = only(brokers.check(Settings.from_environ({**environ, "KAFKA_SASL_PASSWORD": "wrong"}), ["processor"], 2))

    assert (finding.name, finding.status) == ("kafka-reachable", "fault")
    assert "KAFKA_SASL_PASSWORD" in finding.seen
    assert "wrong" not in finding.seen
