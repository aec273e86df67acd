"""What scripts/s3.py does: start, stop and status."""

from __future__ import annotations

import argparse
import json
import os

from tools.background.processes import Services
from tools.local_kafka.ports import check_port
from tools.local_s3 import server as s3
from tools.local_s3.server import DEFAULT_PORT, S3Server
from tools.terminal.status_line import StatusLine


def start(options: argparse.Namespace, line: StatusLine) -> int:
    """Start the server, unless it runs already, and wait until it serves the bucket.

    Raises:
        LocalSetupFailed: it cannot be started, or does not serve the bucket.
    """
    services = _services(options)
    already = services.running
    if not already:
        port = options.port or s3.earlier_port(options.folder) or DEFAULT_PORT
        check_port(port)
        server = S3Server(port)
        s3.start(services, options.folder, options.bucket, os.environ, server, line)
        line("starting the S3 server")
    s3.make_bucket(options.folder, options.bucket)
    server = s3.listening(services)
    server.check(options.bucket)
    line.finish()
    state = "runs already" if already else "started"
    print(f"S3 {state} on {server.endpoint_url}. Settings for clients:")
    buckets = {"S3_BUCKET": options.bucket, "S3_SOURCE_BUCKETS": f"{options.bucket}/sources"}
    for name, value in {**server.environment, **buckets}.items():
        print(f"{name}={value}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop the server; its objects are kept for the next start."""
    services = _services(options)
    running = services.running
    services.stop()
    kept = options.folder / "objects"
    print(f"S3 stopped; its objects stay in {kept}." if running else "S3 is not running.")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show whether the server runs, and its address; return 1 if it does not run."""
    services = _services(options)
    facts = {"state": "not running"}
    if services.running:
        facts = {"state": "running", "endpoint_url": s3.listening(services).endpoint_url}
    print(json.dumps(facts) if options.format == "json" else "  ".join(facts.values()))
    return 0 if services.running else 1


def _services(options: argparse.Namespace) -> Services:
    options.folder.mkdir(parents=True, exist_ok=True)
    return Services(options.folder)
