"""python scripts/capacity.py --songs-per-day N… | --audio-hours H… [--engine ENGINE]
                              [--receipts FILE] [--wait-mean S] [--wait-p95 S] [--json]

How many processors, uploaders, partitions and brokers a load needs, how long tasks wait, and how
much S3 traffic, disk and memory it takes. Several loads are shown side by side. --receipts takes
the speed, lengths and sizes of your own songs on your own machine, from the output of
`scripts/separate.py SONG… --json`. docs/capacity.md has the formulas, and where each constant was
measured. Needs neither Kafka nor the requirements. Exit codes: 0 done, 1 no plan keeps the wanted
wait, or the engine's speed is not known, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script
from tools.topics.options import FORMATS

#: The keys of ENGINES in tools/capacity/measured.py.
ENGINES = ("dsp", "spleeter", "mdx", "audio-separator")


def main() -> int:
    """Print the plan for each load; return the exit code."""
    options = _parser().parse_args()
    from tools.capacity import receipts, report
    from tools.capacity.plan import Impossible, Load, Plan

    facts = vars(options)
    as_json, file = facts.pop("json"), facts.pop("receipts")
    loads, hours = facts.pop("songs_per_day"), facts.pop("audio_hours")
    try:
        load = Load(1.0, **facts)
        if file is not None:
            load = receipts.Receipts.read(file).applied_to(load)
        loads = loads or [86_400 * one / load.song_seconds for one in hours]
        plans = [Plan.of(load.part(1 / songs)) for songs in loads]
    except (Impossible, receipts.Unusable) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, Impossible) else 2
    print("\n".join(map(report.as_json, plans)) if as_json else report.table(plans))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="capacity.py",
    )
    loads = parser.add_mutually_exclusive_group(required=True)
    loads.add_argument(
        "--songs-per-day", type=_positive, nargs="+", metavar="N", help="songs on a mean day"
    )
    loads.add_argument(
        "--audio-hours", type=_positive, nargs="+", metavar="H", help="hours of audio an hour"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each load")
    _add_songs(parser.add_argument_group("songs"))
    _add_speed(parser.add_argument_group("speed"))
    _add_wants(parser.add_argument_group("wishes and operation"))
    return parser


def _add_songs(group: argparse._ArgumentGroup) -> None:
    _add(group, "--song-seconds", _positive, 240.0, "mean length of a song")
    _add(group, "--song-spread", _natural, 0.4, "standard deviation of the lengths, over the mean")
    _add(group, "--peak", _positive, 2.0, "songs in the busiest hour, over those in a mean hour")
    _add(group, "--burstiness", _natural, 1.0, "1: songs come independently; more: in bursts")
    _add(group, "--source-kbps", _positive, 320.0, "size of a source, in kbit for each second")
    group.add_argument("--source-in-s3", action="store_true", help="sources are s3:// URLs")
    group.add_argument(
        "--format",
        choices=FORMATS,
        default="wav",
        dest="stem_format",
        help="of the stems (%(default)s)",
    )
    group.add_argument(
        "--stem-kbps", type=_positive, metavar="X", help="size of one stem (by its format)"
    )


def _add_speed(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--receipts",
        type=Path,
        metavar="FILE",
        help="output of separate.py --json, on your machine",
    )
    group.add_argument("--engine", choices=ENGINES, default="spleeter", help="(%(default)s)")
    group.add_argument(
        "--realtime-factor",
        type=_positive,
        metavar="X",
        help="seconds of audio a second, as in a receipt (measured on two cores)",
    )
    _add(group, "--cores", _whole, 2, "cores of each processor (UVR_THREADS)")
    _add(group, "--source-mbps", _positive, 50.0, "Mbit/s that a download reaches")
    _add(group, "--s3-mbps", _positive, 400.0, "Mbit/s that a process reaches to S3")
    _add(group, "--s3-seconds", _natural, 0.05, "how long S3 takes to answer a request")
    _add(group, "--callback-seconds", _natural, 0.5, "how long a receiver takes to answer")


def _add_wants(group: argparse._ArgumentGroup) -> None:
    _add(group, "--wait-mean", _positive, 60.0, "wanted mean wait in the busiest hour, in s")
    _add(group, "--wait-p95", _positive, 300.0, "wanted wait of 95 %% of the tasks, in s")
    _add(group, "--max-busy", _share, 0.9, "share of the processors that may be busy then")
    _add(group, "--failed", _share, 0.02, "share of the orders that fail")
    _add(group, "--repeated", _natural, 0.02, "share of the work that is done again")
    group.add_argument("--handoff-in-s3", action="store_true", help="HANDOFF_URL is s3://…")
    _add(group, "--retention-days", _positive, 7.0, "how long Kafka keeps tasks and results")
    _add(group, "--replication", _whole, 3, "replicas of each partition")
    _add(group, "--outage-hours", _natural, 4.0, "of the uploaders that the handoff must hold")


def _add(
    group: argparse._ArgumentGroup,
    name: str,
    kind: Callable[[str], float],
    default: float,
    what: str,
) -> None:
    metavar = "N" if isinstance(default, int) else "X"
    group.add_argument(
        name, type=kind, default=default, metavar=metavar, help=f"{what} (%(default)g)"
    )


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (allowed(number) and number < 1e12):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _positive(text: str) -> float:
    return _number(text, lambda number: number > 0, "a number above 0")


def _natural(text: str) -> float:
    return _number(text, lambda number: number >= 0, "a number from 0 on")


def _share(text: str) -> float:
    return _number(text, lambda number: 0 <= number < 1, "a share: give a number from 0 to below 1")


def _whole(text: str) -> int:
    return int(_number(text, lambda number: number >= 1 and number % 1 == 0, "a whole number"))


if __name__ == "__main__":
    script.run(main)
