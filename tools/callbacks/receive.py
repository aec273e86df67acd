"""Receive callbacks on this machine, and show each with the result of verifying it."""

from __future__ import annotations

import argparse
import json
import random
import time
from contextlib import suppress
from functools import partial

from rich.console import Console
from rich.text import Text

import config
from tools.callbacks.receiver import Received, receiving
from tools.terminal.tables import say
from tools.terminal.words import count
from tools.topics.command import DONE, FAILED

FAILURE_STATUS = 503


def receive(options: argparse.Namespace) -> int:
    """Receive callbacks until Ctrl-C; return the exit code."""
    keys = options.key or [secret.get_secret_value() for secret in config.load().callback_secret]
    # Text objects: markup and control characters in a callback have no effect.
    console = None if options.format == "json" else Console(highlight=False, soft_wrap=True)

    def answer() -> int:
        fails = random.random() < options.fail_rate
        return FAILURE_STATUS if fails else int(options.status)

    how = (
        "verifying signatures and audience"
        if keys
        else "NOT verifying (CALLBACK_SECRET is not set)"
    )
    try:
        with receiving(
            options.host,
            options.port,
            secrets=keys,
            audiences=options.audience,
            answer=answer,
            on_received=partial(_show, console),
        ) as receiver:
            say(f"Receiving callbacks at {receiver.url}, {how}; stop with Ctrl-C")
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
            say(f"Received {count(len(receiver.received), 'callback')}")
    except OSError as error:
        say(f"{options.host}:{options.port}: {error.strerror}; try --port 0")
        return FAILED
    return DONE


def _show(console: Console | None, received: Received) -> None:
    """Show one callback on *console*, or as a line of JSON."""
    if console is None:
        line = {
            "webhook_id": received.webhook_id,
            "verified": received.verified,
            "problem": received.problem,
            "answered": received.answered,
            "attempt": received.attempt,
            "payload": received.payload,
        }
        print(json.dumps(line), flush=True)
        return
    sign, style = (
        ("verified", "green")
        if received.verified
        else (f"not verified: {received.problem}", "yellow")
    )
    head = Text(f"{time.strftime('%H:%M:%S')}  ")
    head.append(_printable(received.payload.get("type", "(not a callback)")), style="bold")
    head.append(f"  {_printable(received.task_uuid)}  ")
    head.append(_printable(sign), style=style)
    attempt = f", attempt {received.attempt}" if received.attempt > 1 else ""
    head.append(f"  answered {received.answered}{attempt}")
    console.print(head)
    data = received.payload.get("data")
    for name in ("vocals", "instrumental", "error"):
        part = data.get(name) if isinstance(data, dict) else None
        if isinstance(part, dict):
            about = part.get("message") or part.get("bytes")
            detail = f"{name}: {part.get('url') or part.get('code')}  {about}"
            console.print(Text(f"          {_printable(detail)}", style="dim"))


def _printable(text: object) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)
    )
