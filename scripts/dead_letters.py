"""python scripts/dead_letters.py list|show|redrive: what was set aside, why, and back again.

`list` shows the letters of the three dead-letter topics, copies of one record once; `show` shows
all of one; `redrive` sends letters back to where they are worked on: a task to the task topic, a
result or a callback to the result topic. It only says what it would do, until it is told to
--execute. Same settings as the services (.env too); docs/dead-letters.md. Exit codes: 0 done, 1 a
letter was refused or is not there, 2 wrong usage, 3 unreachable.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from kafka.errors import MessageSizeTooLargeError

import config
from common.errors import TASK_ERRORS
from tools.dead_letters.letters import Letter, headers_to_send_again, read_letters
from tools.terminal.tables import json_line, printable, rows, say
from tools.topics import command
from tools.topics.command import DONE, FAILED, WrongUsage
from tools.topics.reader import Position, Topics, topics
from tools.topics.sender import Sender, sender

MAX_REDRIVES = 3
LISTED = ("time", "letter", "reason", "task_uuid", "copies", "redrives", "message")
REDRIVEN = ("letter", "task_uuid", "to", "action", "why")


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args()

    def act() -> int:
        settings = config.load()
        with topics(settings.kafka, settings.startup_timeout_seconds) as read:
            return int(options.action(options, settings, read))

    return command.run(act)


def show_list(options: argparse.Namespace, settings: config.Settings, read: Topics) -> int:
    """List the letters that were not sent again, or all."""
    shown = hidden = 0
    with rows(LISTED, as_json=options.format == "json") as output:
        for letter in _letters(options, settings, read):
            if letter.redriven and not options.all:
                hidden += 1
                continue
            shown += 1
            output.add(_facts(letter))
    say(f"{shown} letters" + (f"; {hidden} more were redriven since (--all)" if hidden else ""))
    return DONE


def show(options: argparse.Namespace, settings: config.Settings, read: Topics) -> int:
    """Show all there is of some letters."""
    left = set(options.positions)
    for letter in _letters(options, settings, read):
        left.discard(letter.position)
        if options.value:
            _write_value(letter)
        elif options.format == "json":
            print(json_line({**_facts(letter), **_content(letter)}), flush=True)
        else:
            _print(letter)
    for position in sorted(map(str, left)):
        say(f"{position}: there is no such letter")
    return FAILED if left else DONE


def redrive(options: argparse.Namespace, settings: config.Settings, read: Topics) -> int:
    """Send letters back to where they are worked on, or say what would be sent."""
    counted: Counter[str] = Counter()
    with rows(REDRIVEN, as_json=options.format == "json") as output, sender(settings.kafka) as send:
        for letter in _letters(options, settings, read):
            action, why = _decide(letter, options)
            topic = _destination(letter, settings)
            if action == "send" and options.execute:
                action, why = _send(letter, topic, send)
            counted[action] += 1
            output.add({**_identity(letter), "to": topic, "action": action, "why": why})
    refused, skipped = f"{counted['refuse']} refused", f"{counted['skip']} redriven before"
    if options.execute:
        say(f"{counted['sent']} sent, {refused}, {skipped}")
    else:
        say(f"Dry run: {counted['send']} to send, {refused}, {skipped}; --execute sends them")
    return FAILED if counted["refuse"] else DONE


def _decide(letter: Letter, options: argparse.Namespace) -> tuple[str, str]:
    if letter.redriven and not options.again:
        return "skip", "redriven before (--again)"
    if letter.truncated:
        return "refuse", "only the beginning of its value was kept; send it anew from its source"
    if letter.empty:
        return "refuse", f"nothing of it was kept; what there is lies at {letter.origin}"
    if letter.redrives >= options.max_redrives:
        return "refuse", f"redriven {letter.redrives} times, and it failed again (--max-redrives)"
    return "send", ""


def _send(letter: Letter, topic: str, send: Sender) -> tuple[str, str]:
    """Send a letter, then leave the note by which the next redrive knows; in this order, so that
    none is lost.
    """
    record = letter.record
    try:
        send.send(topic, record.key, record.value, headers_to_send_again(record))
    except MessageSizeTooLargeError:
        return "refuse", f"{topic} does not take a record of this size"
    value, headers = letter.note(topic)
    send.send(record.topic, record.key, value, headers)
    return "sent", ""


def _destination(letter: Letter, settings: config.Settings) -> str:
    is_task = letter.record.topic == settings.topology.task_dlq_topic
    return settings.kafka_task_topic if is_task else settings.kafka_result_topic


def _letters(
    options: argparse.Namespace, settings: config.Settings, read: Topics
) -> Iterator[Letter]:
    """Yield the letters that the command line chooses, topic by topic."""
    known = settings.topology.dead_letter_topics
    positions: set[Position] = set(options.positions)
    chosen = (
        set(options.topic or known) if not positions else {position.topic for position in positions}
    )
    if strange := chosen.difference(known):
        raise WrongUsage(
            f"{', '.join(sorted(strange))}: no dead-letter topic; there are {', '.join(known)}"
        )
    wanted = _filter(options, positions)
    for name in known:
        if name in chosen:
            yield from read_letters(read, name, wanted, command.milliseconds(options.from_datetime))


def _filter(options: argparse.Namespace, positions: set[Position]) -> Callable[[Letter], bool]:
    reasons = set(options.reason)

    def wanted(letter: Letter) -> bool:
        return (
            (not positions or letter.position in positions)
            and (not reasons or letter.reason in reasons)
            and command.within(options, letter.record)
            and (not options.task or any(map(letter.concerns, options.task)))
        )

    return wanted


def _identity(letter: Letter) -> dict[str, Any]:
    return {"letter": str(letter.position), "task_uuid": letter.record.task_uuid}


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "time": letter.record.moment.isoformat(timespec="seconds"),
        **_identity(letter),
        "reason": letter.reason,
        "message": letter.message,
        "origin": str(letter.origin),
        "attempts": letter.attempts,
        "copies": letter.copies,
        "redrives": letter.redrives,
        "redriven": letter.redriven,
        "truncated": letter.truncated,
    }


def _content(letter: Letter) -> dict[str, Any]:
    record = letter.record
    headers = [[name, _text_or_base64(value)] for name, value in record.headers]
    return {
        "headers": headers,
        "key": _text_or_base64(record.key),
        "value": _text_or_base64(record.value),
    }


def _text_or_base64(content: bytes | None) -> str | dict[str, str] | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content or b"").decode()}


def _print(letter: Letter) -> None:
    record = letter.record
    print(f"{letter.position}" + ("  (redriven since)" if letter.redriven else ""))
    print(f"  written: {record.moment.isoformat(timespec='seconds')}")
    for name, value in record.headers:
        print(f"  {printable(name)}: {printable(b'' if value is None else value)}")
    print(f"  key: {'(none)' if record.key is None else printable(record.key)}")
    print(f"  value: {'(none)' if record.value is None else printable(record.value)}", flush=True)


def _write_value(letter: Letter) -> None:
    """Write the value for another program, byte for byte; a terminal gets it harmless."""
    value = letter.record.value or b""
    if sys.stdout.isatty():
        print(printable(value))
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="dead_letters.py",
    )
    commands = parser.add_subparsers(required=True, metavar="list|show|redrive")
    listing = commands.add_parser(
        "list", help="the letters, one line each", description="List letters."
    )
    listing.set_defaults(action=show_list, positions=[])
    _add_filters(listing)
    listing.add_argument("--all", action="store_true", help="those too that were redriven since")
    showing = commands.add_parser(
        "show", help="all of one: headers, key and value", description="Show letters whole."
    )
    showing.set_defaults(
        action=show, topic=[], reason=[], task=[], from_datetime=None, to_datetime=None
    )
    showing.add_argument(
        "positions", nargs="+", type=command.position, metavar="LETTER", help="as list names it"
    )
    showing.add_argument("--value", action="store_true", help="only the value, byte for byte")
    command.add_format(showing)
    redriving = commands.add_parser(
        "redrive",
        help="send letters back to where they are worked on",
        description="Send letters back: tasks to the task topic, results and callbacks to the result topic.",
    )
    redriving.set_defaults(action=redrive)
    redriving.add_argument(
        "positions", nargs="*", type=command.position, metavar="LETTER", help="these (all)"
    )
    _add_filters(redriving)
    redriving.add_argument(
        "--max-redrives",
        type=int,
        default=MAX_REDRIVES,
        metavar="N",
        help="refuse those redriven so often (%(default)s)",
    )
    redriving.add_argument(
        "--again", action="store_true", help="those too that were redriven before"
    )
    command.add_execute(redriving)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topic",
        action="extend",
        nargs="+",
        default=[],
        help="of these dead-letter topics (all three)",
    )
    parser.add_argument(
        "--reason",
        action="extend",
        nargs="+",
        default=[],
        choices=sorted(TASK_ERRORS),
        metavar="CODE",
        help="with these",
    )
    parser.add_argument(
        "--task", action="extend", nargs="+", default=[], metavar="TASK_UUID", help="of these tasks"
    )
    command.add_times(parser, "set aside")
    command.add_format(parser)


if __name__ == "__main__":
    sys.exit(main())
