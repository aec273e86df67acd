"""A child that one process is for all songs, and that goes on answering after a song."""

from __future__ import annotations

import json
import sys


def _say(**reply: object) -> None:
    print(json.dumps(reply), flush=True)


def main() -> None:
    """Answer the first song twice, and each further one not at all."""
    sys.stdin.readline()
    _say(kind="ready")
    sys.stdin.readline()
    for code in ("no_audio", "input_empty"):
        _say(kind="error", error={"code": code, "message": "m", "retryable": False})
    sys.stdin.read()


if __name__ == "__main__":
    main()
