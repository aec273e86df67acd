"""python scripts/callbacks.py receive|replay|keygen

receive  shows each callback that arrives, and whether its signature verifies and it is meant for
         this receiver. The keys are --key, or CALLBACK_SECRET (from the environment or .env) or the
         content of the file CALLBACK_SECRET_FILE. Use the printed address as callback_url;
         ALLOWED_ADDRESSES=127.0.0.0/8 lets the uploader reach it on this machine. Behind a proxy or
         tunnel, name the address that callback URLs have with --audience. Stop with Ctrl-C.
replay   lets the uploader resend callbacks, under the same webhook-id, by publishing their results
         again; without --execute it only shows what it would replay. Needs --task or
         --from-datetime.
keygen   prints a new pair of keys: whsk_ for CALLBACK_SECRET, whpk_ for receivers; with --hmac a
         whsec_ for both.

Exit codes: 0 done, 1 the port is in use or a task has no result to replay, 2 wrong usage or
settings, 3 Kafka or S3 cannot be reached.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import add_execute, add_format, add_tasks, add_times, port_or_free


def main() -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args()
    if options.command == "replay" and not options.task and options.from_datetime is None:
        parser.error("replay needs --task or --from-datetime")
    venv.prefer()
    import config
    from common.errors import UrlForbidden
    from common.http_url import HttpUrl
    from tools.callbacks.keygen import keygen
    from tools.callbacks.receive import receive
    from tools.callbacks.replay import replay
    from tools.callbacks.verification import Verifier
    from tools.topics import command
    from tools.topics.connection import check_s3, connected

    if options.command == "keygen":
        keygen(shared=options.hmac)
        return 0
    if options.command == "receive":
        try:
            for key in options.key or ():
                Verifier.of(key)
        except ValueError as error:
            parser.error(f"argument --key: {error}")
        try:
            options.audience = {HttpUrl.parse(url).origin for url in options.audience or ()}
        except UrlForbidden as error:
            parser.error(f"argument --audience: {error.message}")
        return command.run(lambda: receive(options))

    def act() -> int:
        settings = config.load("uploader")
        with connected(settings) as topics:
            check_s3(settings)
            return replay(options, settings, topics)

    return command.run(act)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="callbacks.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="receive|replay|keygen")
    receiving = commands.add_parser("receive", help="receive, verify and show callbacks")
    receiving.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    receiving.add_argument(
        "--port",
        type=port_or_free,
        default=8765,
        help="the port, 0 for a free one (default: %(default)s)",
    )
    add_format(receiving)
    receiving.add_argument(
        "--key",
        "--secret",
        action="append",
        metavar="WHPK",
        help="verify with this whpk_ (or whsec_) key instead of CALLBACK_SECRET; a whsec_ only to "
        "try: other users of this machine can see it",
    )
    receiving.add_argument(
        "--audience",
        action="append",
        metavar="URL",
        help="accept callbacks to this callback URL (default: to the address that is printed)",
    )
    trying = receiving.add_mutually_exclusive_group()
    trying.add_argument(
        "--status", type=_status, default=200, help="answer this status (default: %(default)s)"
    )
    trying.add_argument(
        "--fail-rate",
        type=_share,
        default=0.0,
        metavar="0..1",
        help="answer 503 to this share of callbacks",
    )
    replaying = commands.add_parser(
        "replay",
        help="resend callbacks, by task or by time",
        description="Resend callbacks through the uploader, under the same webhook-id.",
    )
    add_tasks(replaying)
    add_times(replaying, "only results published")
    add_format(replaying)
    add_execute(replaying)
    making = commands.add_parser("keygen", help="make keys that sign callbacks")
    making.add_argument(
        "--hmac", action="store_true", help="one whsec_ key, which receivers share, not a pair"
    )
    return parser


def _status(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 200 <= int(text) < 600):
        raise argparse.ArgumentTypeError(f"{text!r} is not a status: give 200 to 599")
    return int(text)


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a share: give 0 to 1")


if __name__ == "__main__":
    script.run(main)
