"""AsyncAPI 3.0: the topics, keys, headers and messages, and the webhook, as one document.

It says what the pipeline does: it receives tasks and cancels, and sends everything else.
"""

from __future__ import annotations

from typing import Any

from common.messages import TASK_UUID_PATTERN
from common.records import FORWARDED_FROM
from common.topology import Topic, Topology
from common.version import VERSION
from config import Settings
from tools.schemas.examples import examples

Part = dict[str, Any]

_KEY: Part = {
    "type": "string",
    "pattern": TASK_UUID_PATTERN,
    "description": "The task's task_uuid, so that what concerns one task stays in order.",
}
_WEBHOOK_HEADERS: Part = {
    "type": "object",
    "required": ["Content-Type", "webhook-id", "webhook-timestamp"],
    "properties": {
        "Content-Type": {"type": "string", "const": "application/json"},
        "webhook-id": {
            "type": "string",
            "description": "The idempotency key: the same for all attempts at one callback.",
        },
        "webhook-timestamp": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "Seconds since the epoch, of this attempt.",
        },
        "webhook-signature": {
            "type": "string",
            "description": "Standard Webhooks 1.0: `v1,` (HMAC-SHA256) or `v1a,` (Ed25519) and "
            "base64, one per key of CALLBACK_SECRET, separated by spaces; absent without one.",
        },
    },
}
_FORWARDED_HEADERS: Part = {
    "type": "object",
    "properties": {
        FORWARDED_FROM: {
            "type": "string",
            "description": "Written by a processor that forwards a task of high priority from the "
            "task topic: the origin of its first record, as JSON.",
        }
    },
}
_SET_ASIDE = "The record that failed, unchanged, with the reason in headers beside its own."


def asyncapi() -> Part:
    """Return the document; the schemas lie beside it."""
    channels = _channels()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:uvr-pipeline",
        "info": {
            "title": "uvr-pipeline",
            "version": VERSION,
            "description": "Separates songs into vocals and instrumental: tasks come from Kafka, "
            "stems go to S3, and outcomes to S3 and a signed webhook. Topics have the names that "
            "the settings give by default. Ignore fields and headers that you do not know: later "
            "versions may add some.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(channels),
        "components": {"messages": _messages()},
    }


def _operations(channels: Part) -> Part:
    def operation(action: str, channel: str, summary: str) -> Part:
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [
                {"$ref": f"#/channels/{channel}/messages/{message}"}
                for message in channels[channel]["messages"]
            ],
        }

    return {
        "receiveTask": operation("receive", "tasks", "Separate a song."),
        "receiveHighTask": operation("receive", "highTasks", "Separate a song before the others."),
        "receiveCancel": operation("receive", "cancels", "Cancel a waiting or running task."),
        "sendResult": operation("send", "results", "Hand a finished task to the uploaders."),
        "sendProgress": operation("send", "progress", "Report how far a task has come."),
        "sendCallback": operation(
            "send", "callback", "Notify the task's callback_url of its outcome."
        ),
        "delayCallback": operation("send", "callbackRetries", "Wait before the next attempt."),
        "setTaskAside": operation("send", "taskDeadLetters", "Set a bad task aside."),
        "setResultAside": operation("send", "resultDeadLetters", "Set a bad result aside."),
        "giveCallbackUp": operation("send", "callbackDeadLetters", "Give a callback up."),
    }


def _channels() -> Part:
    topology = _topology()
    topics = {
        topic.name: topic
        for service in ("processor", "uploader")
        for topic in topology.topics(service)
    }

    def channel(name: str, description: str, *messages: str) -> Part:
        return {
            "address": name,
            "description": description,
            "messages": _references(messages),
            "bindings": {"kafka": _topic_binding(topics[name])},
        }

    retries = channel(
        topology.retry_topics[0],
        "Internal: callbacks that wait for attempt number + 1, one topic per delay of "
        "CALLBACK_RETRY_DELAYS_SECONDS.",
        "result",
    )
    number = {"description": "From 1 to the number of delays."}
    retries["address"] = retries["address"].removesuffix("1") + "{number}"
    retries["parameters"] = {"number": number}
    del retries["bindings"]["kafka"]["topic"]
    return {
        "tasks": channel(topology.task_topic, "Orders.", "task"),
        "highTasks": channel(
            topology.task_high_topic, "Orders of high priority, sent here or forwarded.", "highTask"
        ),
        "cancels": channel(topology.cancel_topic, "Cancels of tasks.", "cancel"),
        "results": channel(
            topology.result_topic, "From the processors to the uploaders.", "result"
        ),
        "progress": channel(topology.progress_topic, "Best effort.", "progress"),
        "callbackRetries": retries,
        "taskDeadLetters": channel(topology.task_dlq_topic, "Kept for ever.", "deadLetter"),
        "resultDeadLetters": channel(topology.result_dlq_topic, "Kept for ever.", "deadLetter"),
        "callbackDeadLetters": channel(topology.callback_dlq_topic, "Kept for ever.", "deadLetter"),
        "callback": {
            "address": None,
            "description": "The URL is the task's callback_url. Answer 2xx within "
            "CALLBACK_TIMEOUT_SECONDS; 410 ends the attempts, and anything else is tried again.",
            "messages": _references(["callback"]),
        },
    }


def _topology() -> Topology:
    fields = Settings.model_fields
    default = {name: fields[name].default for name in fields}
    return Topology(
        task_topic=default["kafka_task_topic"],
        result_topic=default["kafka_result_topic"],
        progress_topic=default["kafka_progress_topic"],
        cancel_topic=default["kafka_cancel_topic"],
        processor_group=default["kafka_processor_group"],
        uploader_group=default["kafka_uploader_group"],
        retry_delays_seconds=default["callback_retry_delays_seconds"],
        partitions=default["kafka_topic_partitions"],
        retry_partitions=default["kafka_retry_topic_partitions"],
    )


def _references(names: tuple[str, ...] | list[str]) -> Part:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _topic_binding(topic: Topic) -> Part:
    configuration: Part = {
        name: value.split(",") if name == "cleanup.policy" else int(value)
        for name, value in topic.configs.items()
    }
    binding: Part = {"topic": topic.name, "partitions": topic.partitions, "bindingVersion": "0.5.0"}
    return binding | ({"topicConfiguration": configuration} if configuration else {})


def _messages() -> Part:
    made = examples()

    def message(schema: str, summary: str, **more: Any) -> Part:  # noqa: ANN401 -- JSON
        return {
            "summary": summary,
            "payload": {"$ref": f"./{schema}.json"},
            "bindings": {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}},
            "examples": [
                {"name": name, "payload": payload}
                for name, payload in made.items()
                if name == schema or name.startswith(f"{schema}-")
            ],
            **more,
        }

    task = message("task", "An order.")
    callback = message("callback", "The outcome of an order.", headers=_WEBHOOK_HEADERS)
    callback["bindings"] = {"http": {"bindingVersion": "0.3.0"}}
    return {
        "task": task,
        "highTask": task | {"headers": _FORWARDED_HEADERS},
        "cancel": {
            "summary": "Cancels the task that the key names.",
            "description": "The value is ignored, and may be null.",
            "payload": {},
            "bindings": {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}},
            "examples": [{"name": "cancel", "payload": {}}],
        },
        "result": message("result", "How a task ended, and where its stems are."),
        "progress": message("progress", "How far a task has come."),
        "callback": callback,
        "deadLetter": {
            "summary": _SET_ASIDE,
            "headers": {"$ref": "./dead-letter-headers.json"},
            "payload": {"description": "The record's value: any bytes."},
            "examples": [{"name": "invalid_task", "headers": made["dead-letter-headers"]}],
        },
    }
