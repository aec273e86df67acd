"""python scripts/doctor.py [--service processor|uploader] [--callback-url URL] [--json]

Checks every dependency, setting and limit with the settings that the services use (.env too), and
says what to do about each fault. It checks libraries, settings, Kafka with its topics and groups,
S3 and the links in callbacks, the way to receivers, folders, models, a real separation of one
second of sound, and the machine. It changes nothing except its own probe objects, which it removes;
--callback-url sends no event. docs/doctor.md explains each finding. Exit codes: 0 no fault (there
may be warnings), 1 faults, 2 wrong usage or bad settings, 3 Kafka unreachable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print the findings and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="doctor.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--service", choices=("processor", "uploader"), help="check only what it needs (both)"
    )
    parser.add_argument(
        "--callback-url", metavar="URL", help="check that URL can be reached; sends no event"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one line each (text)"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    options = parser.parse_args(arguments)
    venv.prefer(make=False)  # it changes nothing, and names what is missing itself
    from tools.doctor import examination

    services = [options.service] if options.service else ["processor", "uploader"]
    as_json = options.json or options.format == "json"
    return examination.run(services, options.callback_url, as_json=as_json)


if __name__ == "__main__":
    script.run(main)
