"""An OTLP collector on loopback that decodes what it gets."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip(
    "opentelemetry.sdk", reason="the SDK of OpenTelemetry is optional and not installed"
)

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span as it was exported; `kind` is 1 internal, 3 client, 5 consumer; `status` 2 error."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    status: int


class Collector(ThreadingHTTPServer):
    """Keeps the spans posted to /v1/traces."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.headers: list[Mapping[str, str]] = []
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}"

    def of(self, trace_id: str) -> dict[str, Span]:
        """Return the spans of a trace, by their names."""
        return {span.name: span for span in self.spans if span.trace_id == trace_id}

    def take(self, body: bytes) -> None:
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(of_process.resource.attributes)
            for scope in of_process.scope_spans:
                self.spans += [
                    Span(
                        span.name,
                        span.kind,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.trace_state,
                        _plain(span.attributes),
                        resource,
                        span.status.code,
                    )
                    for span in scope.spans
                ]

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.path == "/v1/traces"
        if known:
            self.server.headers.append(dict(self.headers))
            self.server.take(body)
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output readable."""


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
