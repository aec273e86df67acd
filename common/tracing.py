"""Tracing: the trace of the record in hand goes on through results, callbacks and log lines.

Spans are made only when OpenTelemetry's settings ask for them. Without it, its SDK is not imported,
and a record without a trace begins none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from loguru import logger

from common.errors import TaskError
from common.messages import Stage
from common.records import Record
from common.trace_context import TraceContext

if TYPE_CHECKING:
    from common.spans import Attributes, Span, Spans

HOW_TO_INSTALL = (
    "python -m pip install --require-hashes -r requirements.txt -r requirements/opentelemetry.txt"
)


class _Tracing:
    """What this process exports spans with, if it does, and for which consumer group."""

    spans: Spans | None = None
    group = ""


_tracing = _Tracing()
#: Where we are: the trace, and our own span in it if spans are made.
_trace: ContextVar[TraceContext | None] = ContextVar("trace", default=None)
_span: ContextVar[Span | None] = ContextVar("span", default=None)


def start(service: str, group: str, exporter: str) -> None:
    """Export the spans of *service*, which consumes as *group*, if *exporter* is `otlp`.

    Nothing that is wrong with it keeps the process from starting.
    """
    if exporter == "none":
        return
    if exporter != "otlp":
        logger.warning("No spans are exported: OTEL_TRACES_EXPORTER={} is not otlp", exporter)
        return
    try:
        from common.spans import Spans

        _tracing.spans, _tracing.group = Spans(service), group
    except ImportError as error:
        logger.warning("No spans are exported: {}. To install it: {}", error, HOW_TO_INSTALL)
    except ValueError as error:
        logger.warning("No spans are exported: a setting OTEL_* is bad: {}", error)


def stop() -> None:
    """Export the last spans, within bounds."""
    if _tracing.spans is not None:
        _tracing.spans.close()
        _tracing.spans = None


@contextmanager
def processing(record: Record, attempt: int) -> Iterator[None]:
    """Work on *record*, the whole of an attempt: the span of its consumer."""
    attributes: Attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.consumer.group.name": _tracing.group,
        "messaging.kafka.offset": record.offset,
        "messaging.message.conversation_id": record.task_uuid,
        "messaging.message.body.size": len(record.value or b""),
        "uvr.attempt": attempt,
    }
    with _spanning(f"process {record.topic}", "consumer", record.trace, attributes):
        yield


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Do one stage of a task."""
    kind, attributes = "internal", {}
    if name == "callback":
        kind, attributes = "client", {"http.request.method": "POST"}
    with _spanning(name, kind, _trace.get(), attributes):
        yield


def fail(error: TaskError) -> None:
    """Say that the attempt failed, though it ends in an outcome."""
    if (span := _span.get()) is not None:
        span.fail(error.code, error.message)


def note(attributes: Attributes) -> None:
    """Add attributes to the span that we are in."""
    if (span := _span.get()) is not None:
        span.note(attributes)


def record_headers() -> list[tuple[str, bytes]]:
    """Return the headers that put a record into the trace."""
    context = _trace.get()
    return context.record_headers if context else []


def request_headers() -> dict[str, str]:
    """Return the headers that put one HTTP request into the trace, as a span of its own."""
    context = _trace.get()
    if context is None:
        return {}
    return context.headers if _span.get() is not None else context.child().headers


@contextmanager
def _spanning(
    name: str, kind: str, parent: TraceContext | None, attributes: Attributes
) -> Iterator[None]:
    if _tracing.spans is None:
        before = _trace.set(parent)
        try:
            yield
        finally:
            _trace.reset(before)
        return
    span = _tracing.spans.begin(name, kind, parent, attributes)
    before, outer = _trace.set(span.context), _span.set(span)
    try:
        with logger.contextualize(trace_id=span.context.trace_id, span_id=span.context.span_id):
            yield
    except TaskError as error:
        span.fail(error.code, error.message)
        raise
    except BaseException as error:
        span.fail(type(error).__name__, "")
        raise
    finally:
        _span.reset(outer)
        _trace.reset(before)
        span.end()
