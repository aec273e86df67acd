"""High tasks overtake those that wait, each task ends in one outcome, and none waits for ever."""

import json
from functools import partial

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata, TopicPartition

from common.administration import administrator
from common.kafka_consumer import group_consumer, reading_consumer
from common.kafka_settings import KafkaSettings
from common.member import Member
from common.offsets import Offsets
from common.preparation import ensure_topics
from common.priority import Priority, Scout
from common.process import RUN_DIR, Stop
from common.publisher import Publisher
from common.topology import Topic
from tests.faults.test_anchoring import FORBIDDEN
from tests.pipeline import scripts
from tests.pipeline.services import OddName, until


def high_topic(pipeline):
    return f"{pipeline.tasks}_high"


def send_high(pipeline, task_uuid, **fields):
    """Send a task to the high topic directly, without the field."""
    value = json.dumps({"task_uuid": task_uuid, "audio_url": FORBIDDEN, **fields}).encode()
    pipeline.producer.send(high_topic(pipeline), value).get(30)


def results(pipeline):
    """Return the results so far, in order."""
    return [json.loads(record.value) for record in pipeline.records(pipeline.results)]


def until_done(pipeline):
    """Wait until the processors have committed everything; return the tasks' ids, in order."""
    group, topics = f"{pipeline.name}_processors", (pipeline.tasks, high_topic(pipeline))
    until(lambda: not any(pipeline.lag(group, topic) for topic in topics), f"lag 0 of {group}")
    return [result["task_uuid"] for result in results(pipeline)]


def metadata(pipeline):
    """Return the note in the commit of the task topic's first partition."""
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        group = f"{pipeline.name}_processors"
        committed = admin.list_group_offsets({group: None})[group]
    return committed[TopicPartition(pipeline.tasks, 0)].metadata


@pytest.fixture
def hold(pipeline, world):
    """Starts a processor and puts a task in its hand, which waits for the gate that is returned."""

    def begin(**fields):
        gate = world.gated("/held.wav")
        pipeline.started("processor")
        pipeline.order(world.url("/held.wav"), task_uuid="held", **fields)
        world.until_asked("/held.wav")
        return gate

    return begin


@pytest.mark.parametrize("directly", [False, True])
def test_a_high_task_is_begun_before_a_hundred_that_wait(pipeline, hold, directly):
    gate = hold()
    waiting = [pipeline.order(FORBIDDEN, task_uuid=f"normal-{number}") for number in range(100)]
    if directly:
        send_high(pipeline, "high")
    else:
        pipeline.order(FORBIDDEN, task_uuid="high", priority="high")
        pipeline.processes[0].until_logged("high Forwarded")

    gate.set()

    assert until_done(pipeline) == ["held", "high", *waiting]


def test_while_high_tasks_keep_coming_one_turn_in_ten_is_normal(pipeline, hold):
    gate = hold()
    for number in range(10):
        pipeline.order(FORBIDDEN, task_uuid=f"normal-{number}")
    for number in range(30):
        send_high(pipeline, f"high-{number}")

    gate.set()

    _, *ids = until_done(pipeline)
    normal = [place for place, task_uuid in enumerate(ids) if task_uuid.startswith("normal")]
    assert normal[:3] == [9, 19, 29]
    assert sorted(set(ids)) == sorted(ids)
    assert len(ids) == 40


def test_kill_9_neither_forwards_a_task_again_nor_skips_one_that_was_begun(pipeline, hold):
    """The task in hand is high too: it was begun at its own turn, and is repeated there."""
    gate = hold(priority="high")
    pipeline.order(FORBIDDEN, task_uuid="normal")
    pipeline.order(FORBIDDEN, task_uuid="high", priority="high")
    pipeline.processes[0].until_logged("high Forwarded")
    until(lambda: metadata(pipeline) == '{"o": 0, "n": 1, "s": 3}', "the note")

    pipeline.processes[0].kill()
    gate.set()
    pipeline.started("processor")

    assert sorted(until_done(pipeline)) == ["held", "high", "normal"]
    assert len(pipeline.records(high_topic(pipeline))) == 1
    pipeline.processes[1].until_logged("high Skipped")
    assert pipeline.processes[1].log.count("high Skipped") == 1


@pytest.fixture
def lose(pipeline, world):
    """Starts two processors, one with a task in hand, which is killed while the other is busy.

    Waits until the other has noted that the task waits, and returns the gate of both tasks.
    """

    def begin(between=lambda: None, **fields):
        gate = world.gated("/held.wav")
        pipeline.started("processor", "processor")
        pipeline.order(world.url("/held.wav"), task_uuid="begun", **fields)
        world.until_asked("/held.wav")
        between()
        send_high(pipeline, "held", audio_url=world.url("/held.wav"))
        world.until_asked("/held.wav", times=2)
        next(one for one in pipeline.processes if "begun Received" in one.log).kill()
        until(lambda: '"w"' in metadata(pipeline), "the note that the begun task waits")
        return gate

    return begin


def test_a_busy_successor_forwards_nothing_that_was_forwarded_before(pipeline, lose):
    def forward():
        pipeline.order(FORBIDDEN, task_uuid="high", priority="high")
        until(lambda: metadata(pipeline) == '{"o": 0, "n": 1, "s": 2}', "the note")

    gate = lose(forward)
    assert json.loads(metadata(pipeline)) == {"o": 0, "n": 1, "w": True, "s": 2}

    gate.set()

    assert sorted(until_done(pipeline)) == ["begun", "held", "high"]
    assert len(pipeline.records(high_topic(pipeline))) == 2


def test_a_busy_successor_does_not_forward_a_high_task_that_was_begun(pipeline, lose):
    gate = lose(priority="high")
    pipeline.order(FORBIDDEN, task_uuid="high", priority="high")
    until(lambda: '"s": 2' in metadata(pipeline), "the note")

    gate.set()

    assert sorted(until_done(pipeline)) == ["begun", "held", "high"]
    assert len(pipeline.records(high_topic(pipeline))) == 2


def test_a_task_that_is_forwarded_twice_has_one_outcome_under_its_own_origin(pipeline, world, hold):
    """As after a kill between the forwarding and its note, which is removed here."""
    gate = hold()
    hook = world.url("/hook")
    pipeline.order(FORBIDDEN, task_uuid="high", priority="high", callback_url=hook)
    pipeline.processes[0].until_logged("high Forwarded")
    until(lambda: '"s"' in metadata(pipeline), "the note")
    pipeline.processes[0].kill()
    group, partition = f"{pipeline.name}_processors", TopicPartition(pipeline.tasks, 0)
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        until(
            lambda: admin.describe_groups([group])[group]["group_state"] == "Empty",
            "an empty group",
        )
        admin.alter_group_offsets(group, {partition: OffsetAndMetadata(0, "", -1)})
    second = pipeline.started("processor")
    world.until_asked("/held.wav", times=2)
    second.until_logged("high Forwarded")
    gate.set()
    pipeline.started("uploader")

    until_done(pipeline)
    origin = {"topic": pipeline.tasks, "partition": 0, "offset": 1}
    high = [result for result in results(pipeline) if result["task_uuid"] == "high"]
    assert len(high) >= 2  # a commit that a rebalance interrupts brings one more
    assert all(result["origin"].items() >= origin.items() for result in high)
    pipeline.until_no_lag()
    assert pipeline.current_outcome("high")["origin"].items() >= origin.items()
    assert len({callback["id"] for callback in world.callbacks_of("high")}) == 1
    *events, verdict = scripts.lines(pipeline, "trace.py", "high")
    assert verdict["state"] == "failed"
    forwarded = f"{pipeline.tasks}-0@1 forwarded (priority high)"
    assert [event["what"] for event in events].count(forwarded) == 2


def test_submit_sends_a_high_task_to_the_high_topic(pipeline):
    done = scripts.run(pipeline, "submit.py", FORBIDDEN, "--priority", "high", "--json")

    assert json.loads(done.stdout)["origin"]["topic"] == high_topic(pipeline)
    (record,) = pipeline.records(high_topic(pipeline))
    assert json.loads(record.value)["priority"] == "high"


def test_poison_in_the_high_topic_is_set_aside_and_the_next_goes_on(pipeline):
    pipeline.started("processor")
    headers = [("uvr_origin", b"\xff[")]
    pipeline.producer.send(high_topic(pipeline), b"junk", headers=headers).get(30)
    pipeline.producer.send(high_topic(pipeline), b"{}", headers=[(OddName("x"), b"")]).get(30)
    send_high(pipeline, "bad", priority="urgent")
    send_high(pipeline, "good")

    assert until_done(pipeline) == ["bad", "good"]
    bad, _ = results(pipeline)
    assert bad["error"]["code"] == "invalid_task"
    letters = [dict(letter.headers) for letter in pipeline.records(f"{pipeline.tasks}_dlq")]
    assert [letter["uvr_dlq-reason"] for letter in letters] == [
        b"invalid_message",
        b"invalid_message",
        b"invalid_task",
    ]
    assert {letter["uvr_dlq-topic"].decode() for letter in letters} == {high_topic(pipeline)}


def test_what_cannot_be_read_ahead_waits_for_its_turn_and_nothing_is_lost(pipeline, hold):
    """Neither a record that the high topic refuses nor one that cannot be parsed is passed."""
    gate = hold()
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        configs = {"max.message.bytes": "1000"}
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, high_topic(pipeline), configs)]
        )
    pipeline.order(FORBIDDEN, task_uuid="high-0", priority="high")
    pipeline.order(FORBIDDEN, task_uuid="large", priority="high", metadata={"text": 2000 * "x"})
    pipeline.producer.send(pipeline.tasks, b"{}", headers=[(OddName("x"), b"")]).get(30)
    pipeline.order(FORBIDDEN, task_uuid="high-1", priority="high")
    pipeline.processes[0].until_logged("Cannot forward")

    gate.set()

    assert until_done(pipeline) == ["held", "high-0", "large", "high-1"]
    assert len(pipeline.records(f"{pipeline.tasks}_dlq")) == 1


def test_a_brand_new_group_begins_at_the_end_of_both_topics_and_an_older_one_misses_no_high_task(
    pipeline,
):
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(
            admin, [Topic(pipeline.tasks, 1), Topic(high_topic(pipeline), 1)], create=True
        )
    pipeline.order(FORBIDDEN, task_uuid="before")
    send_high(pipeline, "before-high")
    processor = pipeline.started("processor")
    pipeline.order(FORBIDDEN, task_uuid="after")
    send_high(pipeline, "after-high")

    assert sorted(until_done(pipeline)) == ["after", "after-high"]

    # A group from the time before the high topic: its first record was sent before the upgrade.
    processor.end()
    group, partition = f"{pipeline.name}_processors", TopicPartition(high_topic(pipeline), 0)
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        admin.delete_group_offsets(group, [partition])
    pipeline.started("processor")

    assert set(until_done(pipeline)) == {"after", "after-high", "before-high"}


class LateAnswer:
    """The answer to a record that Kafka has, which comes only later: as from a frozen follower."""

    def __init__(self, sent):
        self._sent = sent
        self.is_done = False

    def get(self, timeout):
        if not self.is_done:
            raise KafkaTimeoutError("no answer yet")
        return self._sent.get(timeout)


class LatePublisher(Publisher):
    """Sends records whose answers come when the test says so."""

    def __init__(self, settings):
        super().__init__(settings)
        self.answers: list[LateAnswer] = []

    def send(self, *record, **options):
        self.answers.append(LateAnswer(super().send(*record, **options)))
        return self.answers[-1]


@pytest.mark.parametrize("answered_before", ["the next look", "its own turn"])
def test_a_task_whose_forwarding_is_answered_late_is_forwarded_once(
    pipeline, tmp_path, monkeypatch, answered_before
):
    monkeypatch.chdir(tmp_path)
    RUN_DIR.mkdir(parents=True)
    settings, stop = KafkaSettings((pipeline.kafka,)), Stop("test")
    with administrator(settings, 30) as admin:
        ensure_topics(
            admin, [Topic(pipeline.tasks, 1), Topic(high_topic(pipeline), 1)], create=True
        )
    connect = partial(group_consumer, settings, pipeline.name, 60_000)
    member = Member(connect, [pipeline.tasks], stop, lambda: None)
    offsets, publisher = Offsets(member, stop), LatePublisher(settings)
    reader = partial(reading_consumer, settings)
    scout = Scout(
        member, offsets, Priority(pipeline.tasks, high_topic(pipeline), reader, publisher)
    )
    pipeline.send(b"{}")
    pipeline.send(json.dumps({"task_uuid": "urgent", "priority": "high"}).encode())
    partition = TopicPartition(pipeline.tasks, 0)
    member.join()
    until(lambda: member.poll(50), "the record in hand")
    member.begin(partition)
    offsets.note_attempts(partition, 0, 1)

    def look():
        scout._next_step = 0.0
        member.keep_alive(partition, 50)
        scout.step()

    def forwarded():
        return [one.value for one in pipeline.records(high_topic(pipeline))]

    until(lambda: look() or forwarded(), "the forwarded task")
    look()
    publisher.answers[0].is_done = True
    if answered_before == "the next look":
        look()
    member.finish()
    assert offsets.commit(partition, 1)
    member.consumer.resume(partition)
    (record,) = until(lambda: member.poll(50), "the turn of the forwarded task").values()

    assert scout.skips(record)
    assert len(forwarded()) == len(publisher.answers) == 1
    scout.close()
    publisher.close()
    member.leave()
