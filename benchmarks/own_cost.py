"""python benchmarks/own_cost.py [--tasks N] [--store s3proxy|moto] [--json FILE]

The pipeline's own cost of a task: from the publish that Kafka acknowledged to the callback that the
receiver heard, without the separation (`receipt.seconds.separate`). One task at a time, a song of
one second with `dsp`, through a real broker, S3 server, HTTP server, processor and uploader.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import quantiles

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.figures import Figure, publish
from benchmarks.rig import SETTINGS, Rig, add_options, rig

#: Tasks before the first that is timed: connections, caches, code that is compiled on first use.
WARM_UP = 10


def main() -> None:
    """Measure, and print the figures."""
    options = _options()
    with rig(options.store) as running:
        running.pipeline.started("processor", "uploader", **SETTINGS)
        costs = [_cost_ms(running) for _ in range(WARM_UP + options.tasks)][WARM_UP:]
    note = f"{options.tasks} tasks, S3 is {options.store}"
    publish(
        [
            Figure("own cost of a task, p50", costs, "ms", at_most=60, note=note),
            Figure("own cost of a task, p95", [quantiles(costs, n=20)[-1]], "ms", at_most=120),
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100, metavar="N", help="timed tasks (100)")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
