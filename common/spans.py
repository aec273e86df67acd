"""Spans of OpenTelemetry, exported over OTLP/HTTP; imported only when they are asked for.

Its SDK reads its standard settings (OTEL_*) itself. It exports on a thread of its own, from a queue
that drops spans when it is full, so a collector that is lost or slow never holds up a task.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from common.trace_context import TraceContext
from common.version import VERSION

#: How long the last spans may take to reach the collector when the process ends.
FLUSH_SECONDS = 5.0

Attributes = Mapping[str, str | int]
KINDS = {"consumer": SpanKind.CONSUMER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


class Span:
    """One span, until it ends."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        made = span.get_span_context()
        self.context = TraceContext(
            trace.format_trace_id(made.trace_id),
            trace.format_span_id(made.span_id),
            int(made.trace_flags),
            made.trace_state.to_header(),
        )

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def fail(self, kind: str, message: str) -> None:
        """Say that what it measures failed with an error of this *kind*."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR, message)

    def end(self) -> None:
        """End it, and give it to the exporter."""
        self._span.end()


class Spans:
    """Makes and exports the spans of one process of *service*."""

    def __init__(self, service: str) -> None:
        session = requests.Session()
        # Neither proxies nor netrc of the environment: OpenTelemetry's settings know none.
        session.trust_env = False
        ours = Resource.create({"service.name": f"uvr-{service}", "service.version": VERSION})
        self._provider = TracerProvider(
            # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=session)))
        self._tracer = self._provider.get_tracer("uvr-pipeline", VERSION)

    def begin(
        self, name: str, kind: str, parent: TraceContext | None, attributes: Attributes
    ) -> Span:
        """Begin a span below *parent*, or that of a new trace."""
        context = trace.set_span_in_context(_remote(parent)) if parent else None
        return Span(self._tracer.start_span(name, context, kind=KINDS[kind], attributes=attributes))

    def close(self) -> None:
        """Export what is left, for FLUSH_SECONDS at most."""
        # The SDK's own limit of 30 s cannot be changed, and its flush has none.
        flush = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


def _remote(context: TraceContext) -> trace.Span:
    return trace.NonRecordingSpan(
        SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(context.flags),
            trace_state=TraceState.from_header([context.state]),
        )
    )
