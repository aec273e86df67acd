"""List dead letters, and show them in full."""

from __future__ import annotations

import argparse
import base64
import sys
from typing import Any

import config
from common.messages import rfc3339
from tools.dead_letters.dead_letter import DeadLetter
from tools.dead_letters.selection import identity, selected
from tools.terminal.tables import json_line, printable, rows, say
from tools.terminal.words import count
from tools.topics.command import DONE, FAILED
from tools.topics.reader import Topics


def show_list(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """List the selected dead letters, one row each; return the exit code."""
    columns = ("time", "letter", "reason", "task_uuid", "copies", "redrives", "message")
    shown = hidden = 0
    with rows(columns, as_json=options.format == "json") as output:
        for dead_letter in selected(options, settings, topics):
            if dead_letter.redriven and not options.all:
                hidden += 1
                continue
            shown += 1
            output.add(_facts(dead_letter))
    kept_back = f"{count(hidden, 'redriven dead letter')} {'is' if hidden == 1 else 'are'} hidden"
    more = f"; {kept_back} (show them with --all)" if hidden else ""
    say(f"Dead letters: {shown}{more}")
    return DONE


def show(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """Show the selected dead letters in full; return the exit code."""
    missing = set(options.positions)
    for dead_letter in selected(options, settings, topics):
        missing.discard(dead_letter.position)
        record = dead_letter.record
        if options.value:
            value = record.value or b""
            if sys.stdout.isatty():  # escapes control characters
                print(printable(value))
            else:
                sys.stdout.buffer.write(value)
                sys.stdout.buffer.flush()
        elif options.format == "json":
            encoded = {
                "headers": [[name, _text_or_base64(value)] for name, value in record.headers],
                "key": _text_or_base64(record.key),
                "value": _text_or_base64(record.value),
            }
            print(json_line({**_facts(dead_letter), **encoded}), flush=True)
        else:
            print(f"{dead_letter.position}" + ("  (redriven)" if dead_letter.redriven else ""))
            print(f"  written: {rfc3339(record.moment)}")
            for name, header in record.headers:
                print(f"  {printable(name)}: {printable(b'' if header is None else header)}")
            for name, content in (("key", record.key), ("value", record.value)):
                shown = "(none)" if content is None else printable(content)
                print(f"  {name}: {shown}", flush=True)
    for position in sorted(map(str, missing)):
        say(f"{position}: there is no such dead letter")
    return FAILED if missing else DONE


def _facts(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "time": rfc3339(dead_letter.record.moment),
        **identity(dead_letter),
        "reason": dead_letter.reason,
        "message": dead_letter.message,
        "origin": str(dead_letter.origin),
        "attempts": dead_letter.text("attempts"),
        "copies": dead_letter.copies,
        "redrives": dead_letter.redrives,
        "redriven": dead_letter.redriven,
        "truncated": dead_letter.truncated,
    }


def _text_or_base64(content: bytes | None) -> str | dict[str, str] | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content or b"").decode()}
