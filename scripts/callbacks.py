"""python scripts/callbacks.py receive [--host HOST] [--port PORT] [--format text|json] python
scripts/callbacks.py replay --task TASK_UUID… | --from-datetime TIME [--to-datetime TIME]
[--execute]

`receive` shows each callback that comes, with its signature verified by the reference library of
Standard Webhooks. The secret is CALLBACK_SECRET, from the environment, from .env, or from the file
that CALLBACK_SECRET_FILE names. Give tasks the address it prints as their callback_url; the
uploader must be allowed to reach it, which for this machine means ALLOWED_ADDRESSES=127.0.0.0/8.
Ends with Ctrl-C.

`replay` lets the uploader tell receivers again how tasks ended, under the same webhook-id, by
putting their results onto the result topic once more. It only says what it would do, until it is
told to --execute.

Exit codes: 0 done, 1 the port is taken or a task cannot be told of again, 2 wrong usage, 3
unreachable.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from rich.console import Console
from rich.text import Text

import config
from common.callback import parse_secret
from common.errors import SettingsInvalid
from tools.callbacks.receiver import OK, Received, clock_text, receiving
from tools.topics import command
from tools.topics.command import DONE, FAILED

REPLAY = "Let the uploader tell receivers again how tasks ended: the outcome that stands, under the same webhook-id."
FAILURE_STATUS = 503
DEFAULT_PORT = 8765


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command == "replay" and not arguments.task and arguments.from_datetime is None:
        parser.error("replay needs --task or --from-datetime")
    if arguments.command == "replay":
        return _replay(arguments)
    try:
        secrets = arguments.secret or _settings_secrets()
        return _receive(arguments, secrets)
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{arguments.host}:{arguments.port}: {error.strerror}; try --port 0", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="callbacks.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="receive|replay")
    receive = commands.add_parser("receive", help="receive callbacks, verify and show them")
    receive.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default %(default)s)"
    )
    receive.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default %(default)s)"
    )
    receive.add_argument(
        "--format", choices=("text", "json"), default="text", help="default %(default)s"
    )
    receive.add_argument(
        "--secret",
        action="append",
        type=_secret,
        metavar="WHSEC",
        help="instead of CALLBACK_SECRET, for trying: other users of this machine can see it",
    )
    trying = receive.add_mutually_exclusive_group()
    trying.add_argument("--status", type=int, default=OK, help="answer this (default %(default)s)")
    trying.add_argument(
        "--fail-rate",
        type=float,
        default=0.0,
        metavar="0..1",
        help=f"answer {FAILURE_STATUS} to this share of them",
    )
    _add_replay(
        commands.add_parser("replay", help="deliver again, by task or by time", description=REPLAY)
    )
    return parser


def _add_replay(replay: argparse.ArgumentParser) -> None:
    replay.add_argument(
        "--task",
        action="extend",
        nargs="+",
        default=[],
        metavar="TASK_UUID",
        help="of these tasks, and no others",
    )
    command.add_times(replay, "of results published")
    command.add_format(replay)
    command.add_execute(replay)


def _replay(arguments: argparse.Namespace) -> int:
    from tools.callbacks.replays import replay

    return command.run(lambda: replay(arguments))


def _secret(text: str) -> str:
    try:
        parse_secret(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _settings_secrets() -> list[str]:
    return [secret.get_secret_value() for secret in config.load().callback_secret]


def _receive(arguments: argparse.Namespace, secrets: list[str]) -> int:
    show = _show_json if arguments.format == "json" else _text_shower()
    answer = _answers(arguments.status, arguments.fail_rate, random.Random())
    with receiving(
        arguments.host, arguments.port, secrets=secrets, answer=answer, on_received=show
    ) as receiver:
        how = "verifying signatures" if secrets else "NOT verifying: there is no CALLBACK_SECRET"
        print(
            f"Receiving callbacks at {receiver.url}, {how}; Ctrl-C ends",
            file=sys.stderr,
            flush=True,
        )
        try:
            _wait_for_ever()
        except KeyboardInterrupt:
            print(f"Received {len(receiver.received)} callbacks", file=sys.stderr)
    return DONE


def _wait_for_ever() -> None:
    never = threading.Event()
    # On Windows, Ctrl-C does not reach a wait that has no end.
    while not never.wait(0.5):
        pass


def _answers(status: int, fail_rate: float, randomness: random.Random) -> Callable[[], int]:
    return lambda: FAILURE_STATUS if randomness.random() < fail_rate else status


def _show_json(received: Received) -> None:
    line = {
        "webhook_id": received.webhook_id,
        "verified": received.verified,
        "problem": received.problem,
        "answered": received.answered,
        "attempt": received.attempt,
        "payload": received.payload,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _text_shower() -> Callable[[Received], None]:
    # Plain Text throughout: what strangers send is no markup, and control characters in it do not
    # act.
    console = Console(highlight=False, soft_wrap=True)

    def show(received: Received) -> None:
        for line in _lines(received):
            console.print(line)

    return show


def _lines(received: Received) -> list[Text]:
    payload = received.payload
    sign, style = (
        ("verified", "green")
        if received.verified
        else (f"not verified: {received.problem}", "yellow")
    )
    head = Text(f"{clock_text()}  ")
    head.append(_printable(payload.get("type", "(no callback)")), style="bold")
    head.append(f"  {_printable(received.task_uuid)}  ")
    head.append(_printable(sign), style=style)
    head.append(
        f"  answered {received.answered}"
        + (f", attempt {received.attempt}" if received.attempt > 1 else "")
    )
    return [
        head,
        *(Text(f"          {_printable(detail)}", style="dim") for detail in _details(received)),
    ]


def _details(received: Received) -> list[str]:
    data = received.payload.get("data")
    if not isinstance(data, dict):
        return []
    parts = [(name, data.get(name)) for name in ("vocals", "instrumental", "error")]
    return [
        f"{name}: {part.get('url') or part.get('code')}  {part.get('message') or part.get('bytes')}"
        for name, part in parts
        if isinstance(part, dict)
    ]


def _printable(text: object) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)
    )


if __name__ == "__main__":
    sys.exit(main())
