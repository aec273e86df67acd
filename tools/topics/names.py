"""Names of the topics that the services create beside those that settings name."""

from __future__ import annotations

import re

import config


def dead_letter_topics(settings: config.Settings) -> tuple[str, str, str]:
    """Return the three dead-letter topics."""
    return settings.task_dlq_topic, settings.result_dlq_topic, settings.callback_dlq_topic


def is_retry_topic(name: str, settings: config.Settings) -> bool:
    """Tell whether topic *name* holds callbacks to retry, now or by an earlier, longer setting."""
    pattern = rf"{re.escape(settings.kafka_result_topic)}_callback_retry_\d+"
    return re.fullmatch(pattern, name) is not None
