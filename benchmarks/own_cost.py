"""python benchmarks/own_cost.py [--tasks N] [--store s3proxy|moto] [--json FILE]

The pipeline's own cost of a task: from the publish that Kafka acknowledged to the callback that the
receiver heard, without the separation (`receipt.seconds.separate`). One task at a time, a song of
one second with `dsp`, through a real broker, S3 server, HTTP server, processor and uploader. Where
it goes, as means: the wait for the first attempt and the stages, by the services' metrics; the
rest is the song's process, the handoff, and Kafka between the services.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, quantiles

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.figures import Figure, publish
from benchmarks.rig import SETTINGS, Rig, add_options, rig
from tests.servers import free_port

#: Tasks before the first that is timed: connections, caches, code that is compiled on first use.
WARM_UP = 10
#: Of the services' metrics; the separation does not count.
STAGES = ("download", "upload", "callback")


def main() -> None:
    """Measure, and print the figures."""
    options = _options()
    with rig(options.store) as running:
        ports = [free_port(), free_port()]
        for name, port in zip(("processor", "uploader"), ports, strict=True):
            running.pipeline.started(name, METRICS_PORT=str(port), **SETTINGS)
        for _ in range(WARM_UP):
            _cost_ms(running)
        before = _spent_ms(ports)
        costs = [_cost_ms(running) for _ in range(options.tasks)]
        spent = {
            name: (total - before[name]) / options.tasks for name, total in _spent_ms(ports).items()
        }
    spent["the rest"] = mean(costs) - sum(spent.values())
    note = f"{options.tasks} tasks, S3 is {options.store}"
    publish(
        [
            Figure("own cost of a task, p50", costs, "ms", at_most=60, note=note),
            Figure("own cost of a task, p95", [quantiles(costs, n=20)[-1]], "ms", at_most=120),
            *(Figure(f"of its mean: {name}", [spent_ms], "ms") for name, spent_ms in spent.items()),
        ],
        options.json,
    )


def _cost_ms(running: Rig) -> float:
    world = running.world
    task_uuid = running.order()
    acknowledged = time.monotonic()
    callback = world.callback(task_uuid)
    heard = world.attempts_at("/hook")[-1].moment
    time.sleep(0.3)  # both services commit, and are idle again
    separate = float(callback["data"]["receipt"]["seconds"]["separate"])
    return 1000 * (heard - acknowledged - separate)


def _spent_ms(ports: Sequence[int]) -> dict[str, float]:
    """Return how long tasks waited, and were in each stage that counts, until now."""
    spent: dict[str, float] = defaultdict(float)
    for port in ports:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "uvr_wait_seconds_sum" and sample.labels["priority"] == "normal":
                    spent["waiting for its attempt"] += 1000 * sample.value
                stage = sample.labels.get("stage")
                if sample.name == "uvr_stage_duration_seconds_sum" and stage in STAGES:
                    spent[stage] += 1000 * sample.value
    return spent


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100, metavar="N", help="timed tasks (100)")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
