"""python benchmarks/callback_latency.py [--results N] [--waiting N]

The cost of failing callbacks: the time from a result's record to its callback, first with nothing
else to do, then while many callbacks to a receiver that is down are retried. Kafka, S3 server,
receiver and uploader are real.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from common.errors import DownloadFailed
from common.messages import Addressee, Origin, Result
from tests.conftest import BROKER_SETTINGS
from tests.pipeline.services import Pipeline
from tests.pipeline.world import World
from tests.servers import s3_server
from tools.local_kafka.broker import Broker


def main() -> None:
    """Measure both cases in one run and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results",
        type=int,
        default=100,
        metavar="N",
        help="results that are timed in each case (100)",
    )
    parser.add_argument(
        "--waiting",
        type=int,
        default=200,
        metavar="N",
        help="callbacks that fail in the second case (200)",
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = stack.enter_context(Broker(folder / "kafka", settings=BROKER_SETTINGS))
        pipeline = Pipeline(broker, stack.enter_context(s3_server()), folder, partitions=1)
        stack.callback(pipeline.end)
        world = World()
        stack.callback(world.end)
        world.answers["/down"] = 503
        pipeline.started("uploader", CALLBACK_RETRY_DELAYS_SECONDS=",".join(["1"] * 20))
        alone = _timed(pipeline, world, options.results, "alone")
        for number in range(options.waiting):
            _publish(pipeline, f"down-{number}", world.url("/down"))
        world.until_attempts("/down", options.waiting)
        attempts = len(world.attempts_at("/down"))
        beside = _timed(pipeline, world, options.results, "beside")
        print(f"{len(world.attempts_at('/down')) - attempts} attempts failed in the second case")
        print(f"median delay of a callback: {median(beside) / median(alone):.2f} times as long")


def _timed(pipeline: Pipeline, world: World, count: int, name: str) -> list[float]:
    """Return the seconds from each record to its callback, one result after the other."""
    seconds = []
    for number in range(count):
        time.sleep(0.3)  # failed callbacks are retried in these pauses
        began = time.monotonic()
        _publish(pipeline, f"{name}-{number}", world.url("/hook"))
        while not world.callbacks_of(f"{name}-{number}"):
            time.sleep(0.002)
        seconds.append(time.monotonic() - began)
    p95 = quantiles(seconds, n=20)[-1]
    print(f"{name}: median {median(seconds) * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")
    return seconds


def _publish(pipeline: Pipeline, task_uuid: str, url: str) -> None:
    addressee = Addressee(task_uuid=task_uuid, callback_url=url)
    result = Result.failed(
        addressee,
        Origin(topic=pipeline.tasks, partition=0, offset=0),
        1,
        DownloadFailed("Unavailable."),
    )
    pipeline.producer.send(pipeline.results, key=task_uuid.encode(), value=result.encode()).get(30)


if __name__ == "__main__":
    main()
