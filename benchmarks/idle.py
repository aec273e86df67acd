"""python benchmarks/idle.py [--seconds SECONDS] [--windows N] [--json FILE]

What a processor and an uploader cost while there is nothing to do: CPU seconds of each process, its
children included, in each second, in N windows one after the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.figures import Figure, publish
from benchmarks.rig import SETTINGS, add_options, cpu_seconds, rig

SERVICES = ("processor", "uploader")
#: Until idle processes have slowed down.
SETTLE_SECONDS = 20.0


def main() -> None:
    """Measure both services at the same time, and print the figures."""
    options = _options()
    with rig(options.store) as running:
        processes = {name: running.pipeline.started(name, **SETTINGS) for name in SERVICES}
        running.world.callback(running.order())
        time.sleep(SETTLE_SECONDS)
        shares: dict[str, list[float]] = {name: [] for name in SERVICES}
        for _ in range(options.windows):
            before = {name: cpu_seconds(process.pid) for name, process in processes.items()}
            began = time.monotonic()
            time.sleep(options.seconds)
            elapsed = time.monotonic() - began
            for name, process in processes.items():
                used = cpu_seconds(process.pid) - before[name]
                shares[name].append(100 * used / elapsed)
    publish(
        [Figure(f"an idle {name}", shares[name], "% of a core", at_most=1) for name in SERVICES],
        options.json,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of a window (30)")
    parser.add_argument("--windows", type=int, default=4, metavar="N", help="windows (4)")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
