"""A plan as facts for machines, and plans side by side as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tools.capacity import measured, s3_requests
from tools.capacity.plan import DAY_SECONDS, Plan, upload_wait_seconds

GB = 1e9

Facts = dict[str, float]

#: What a row shows, by the name of the fact; None begins a part of the table.
ROWS: Sequence[tuple[str | None, str]] = (
    (None, "Load"),
    ("songs_per_day", "songs a day"),
    ("audio_hours_per_hour", "hours of audio an hour"),
    ("peak_songs_per_second", "songs a second, busiest hour"),
    ("task_seconds", "a processor's seconds for a task"),
    ("result_seconds", "an uploader's seconds for a result"),
    (None, "Processes"),
    ("pipelines", "pipelines"),
    ("processors", "processors"),
    ("busy", "of them busy, busiest hour"),
    ("cores", "cores for them"),
    ("uploaders", "uploaders"),
    ("uploaders_if_receivers_hang", "uploaders, if receivers hang"),
    ("memory_gb", "memory, GB"),
    (None, "Wait for a processor, busiest hour"),
    ("wait_mean_seconds", "mean, s"),
    ("wait_p95_seconds", "95 % at most, s"),
    ("result_wait_seconds", "and mean for an uploader, s"),
    (None, "Kafka"),
    ("partitions", "partitions of tasks and of results"),
    ("kafka_requests_per_second", "requests a second, busiest hour"),
    ("kafka_gb", "on the brokers' disks, GB"),
    ("brokers", "brokers"),
    (None, "S3"),
    ("s3_writes_per_day", "PUT, POST, DELETE a day"),
    ("s3_reads_per_day", "GET, HEAD a day"),
    ("s3_lists_per_day", "LIST a day"),
    ("s3_stored_gb_per_day", "stored a day, GB"),
    (None, "Disks and network"),
    ("handoff_gb", "handoff, GB (an outage of the uploaders)"),
    ("work_gb", "work folders, GB"),
    ("download_mbps", "sources, Mbit/s, busiest hour"),
    ("s3_mbps", "to and from S3, Mbit/s, busiest hour"),
    ("callbacks_per_second", "callbacks a second, busiest hour"),
)


def facts(plan: Plan) -> Facts:
    """Return the plan's figures, for all pipelines together."""
    load, waits, many = plan.load, plan.waits, plan.pipelines
    requests = plan.requests_per_order
    orders, rate = load.songs_per_day, load.peak_rate
    stems_bytes = 2 * load.stem_bytes * (1 - load.failed)
    song_bytes = measured.ENGINES[load.engine].song_bytes
    processor_bytes = measured.PROCESSOR_BYTES + measured.CHILD_BYTES + song_bytes
    memory_bytes = plan.processors * processor_bytes + plan.uploaders * measured.UPLOADER_BYTES
    work_bytes = load.source_bytes + 2 * load.stem_bytes
    work_bytes += load.song_seconds * measured.KEPT_KBPS * 125
    s3_bytes = stems_bytes * (1 + 2 * load.handoff_in_s3) + load.source_bytes * load.source_in_s3
    return {
        "songs_per_day": orders,
        "audio_hours_per_hour": orders * load.song_seconds / DAY_SECONDS,
        "peak_songs_per_second": rate,
        "task_seconds": load.task_seconds,
        "result_seconds": load.result_seconds,
        "pipelines": many,
        "processors": many * plan.processors,
        "busy": rate * load.task_seconds / (many * plan.processors),
        "cores": many * plan.processors * load.cores,
        "uploaders": many * plan.uploaders,
        "uploaders_if_receivers_hang": many * plan.uploaders_if_receivers_hang,
        "memory_gb": many * memory_bytes / GB,
        "wait_mean_seconds": waits.mean_seconds,
        "wait_p95_seconds": waits.quantile(0.95),
        "result_wait_seconds": upload_wait_seconds(plan.part, plan.uploaders),
        "partitions": many * plan.partitions,
        "kafka_requests_per_second": many * plan.kafka_requests_per_second,
        "kafka_gb": plan.kafka_bytes / GB,
        "brokers": plan.brokers,
        "s3_writes_per_day": orders * s3_requests.writes(requests),
        "s3_reads_per_day": orders * (requests["GET"] + requests["HEAD"]),
        "s3_lists_per_day": orders * requests["LIST"],
        "s3_stored_gb_per_day": orders * stems_bytes / GB,
        "handoff_gb": rate * 3600 * load.outage_hours * stems_bytes / GB,
        "work_gb": many * plan.processors * work_bytes / GB,
        "download_mbps": rate * load.source_bytes / 125_000,
        "s3_mbps": rate * s3_bytes / 125_000,
        "callbacks_per_second": rate,
    }


def limits(plan: Plan) -> Facts:
    """Return how many songs a day one pipeline can reach, by what it runs into."""
    songs = plan.part.songs_per_day
    return {limit.name: songs * limit.available / limit.used for limit in plan.limits()}


def as_json(plan: Plan) -> str:
    """Return the plan's facts as one line."""
    return json.dumps({**facts(plan), "limits": limits(plan)})


def table(plans: Sequence[Plan]) -> str:
    """Return *plans* side by side, in lines."""
    return "\n".join(_lines(plans))


def _lines(plans: Sequence[Plan]) -> Iterator[str]:
    columns = [facts(plan) for plan in plans]
    for name, label in ROWS:
        yield label if name is None else _line(label, [column[name] for column in columns])
    yield "One pipeline's limit, in songs a day"
    reached = [limits(plan) for plan in plans]
    for limit in reached[0]:
        yield _line(limit, [round(column[limit], -3) for column in reached])


def _line(label: str, values: Sequence[float]) -> str:
    return f"  {label:42}" + "".join(f"{_shown(value):>12}" for value in values)


def _shown(value: float) -> str:
    """Return whole numbers as they are, and others with three digits that matter."""
    if value == round(value) or value >= 100:
        return f"{value:,.0f}"
    # What remains of sums that cancel out is nothing.
    return "0" if abs(value) < 1e-6 else f"{value:.3g}"
