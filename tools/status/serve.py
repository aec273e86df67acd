"""Start the status service."""

from __future__ import annotations

import argparse
import ipaddress
import os
from pathlib import Path

import config
from tools.services.fleet import Fleet
from tools.status.server import Server
from tools.status.tasks import Tasks
from tools.status.watcher import Watcher
from tools.terminal.tables import say
from tools.topics.command import DONE, WrongUsage

MIN_TOKEN_CHARACTERS = 16


def serve(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code."""
    folder = options.folder.resolve()
    os.chdir(folder)
    settings = config.load()
    token = read_token()
    if token is None and not _is_loopback(options.host):
        raise WrongUsage(
            f"--host {options.host}: others can reach this address, so a token is needed: set "
            "STATUS_TOKEN or STATUS_TOKEN_FILE, for example to the output of: openssl rand -hex 24"
        )
    watcher = Watcher(settings, Fleet(folder, {}))
    try:
        server = Server(
            (options.host, options.port),
            watcher,
            Tasks(settings, watcher),
            token=token,
            names=frozenset(name.lower() for name in options.name),
        )
    except OSError as error:
        raise WrongUsage(
            f"Cannot serve at {options.host} port {options.port}: {error.strerror or error}. "
            "Choose another --host or --port."
        ) from error
    watcher.start()
    shown = f"[{options.host}]" if ":" in options.host else options.host
    say(f"Status at http://{shown}:{server.server_address[1]}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        server.server_close()
    return DONE


def read_token() -> str | None:
    """Return STATUS_TOKEN, or the content of the file that STATUS_TOKEN_FILE names.

    Raises:
        WrongUsage: both are set, the file cannot be read, or the token is too short.
    """
    token, file = os.environ.get("STATUS_TOKEN"), os.environ.get("STATUS_TOKEN_FILE")
    if token and file:
        raise WrongUsage("STATUS_TOKEN_FILE: STATUS_TOKEN is set as well; keep one of them")
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise WrongUsage(f"STATUS_TOKEN_FILE: {file} cannot be read: {error}") from error
    elif not token:
        return None
    if len(token) < MIN_TOKEN_CHARACTERS or not (token.isascii() and token.isprintable()):
        raise WrongUsage(
            f"STATUS_TOKEN: must have at least {MIN_TOKEN_CHARACTERS} printable ASCII characters; "
            "make one: openssl rand -hex 24"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
