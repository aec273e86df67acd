"""Celery with Redis as its broker, a peer of throughput.py; in an environment of its own.

    CELERY_BENCHMARK=SETTINGS celery -A benchmarks.celery_worker worker --concurrency=1
    CELERY_BENCHMARK=SETTINGS python -m benchmarks.celery_worker

Its task is the plain worker's job, on Celery's defaults: an order is acknowledged before it is
worked on, so one that is killed is lost. The second command sends the order of each line that it
reads. SETTINGS is a JSON object: broker, folder, bucket and the endpoint of S3.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.plain_worker import PlainJob

_GIVEN = json.loads(os.environ["CELERY_BENCHMARK"])

app = Celery("benchmarks", broker=_GIVEN["broker"])
app.conf.task_ignore_result = True


@cache
def _job() -> PlainJob:
    return PlainJob(Path(_GIVEN["folder"]), _GIVEN["bucket"], _GIVEN["endpoint"])


@app.task(name="separate")  # type: ignore[untyped-decorator]  # Celery has no types
def separate(task: dict[str, Any]) -> None:
    """Do the job."""
    _job().do(task)


def main() -> None:
    """Send the orders that come on standard input."""
    for line in sys.stdin:
        separate.delay(json.loads(line))


if __name__ == "__main__":
    main()
