"""Run the test suite."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tools.environment.venv import ROOT
from tools.local_kafka import broker
from tools.local_s3 import server
from tools.terminal.status_line import StatusLine


def run(arguments: Sequence[str]) -> int:
    """Download Kafka and S3Proxy, run pytest with *arguments*, and return its exit code.

    Raises:
        LocalSetupFailed: Kafka or S3Proxy could not be prepared.
    """
    status = StatusLine()
    # Before the tests, so that no test's time limit includes the download.
    broker.distribution(status=status)
    server.distribution(status)
    status.finish()
    os.chdir(ROOT)
    # Most tests wait for processes: one worker more than cores, each with its Kafka, is fastest.
    workers = min(1 + (os.cpu_count() or 1), 4)
    # Tests of a file share what they start. The order is that of the folders, the slowest first,
    # instead of that of the files' numbers of tests.
    parallel = [f"--numprocesses={workers}", "--dist=loadfile", "--no-loadscope-reorder"]
    return int(pytest.main([*parallel, *arguments]))
