"""python scripts/callbacks.py receive|replay

receive  shows each callback that arrives, with its signature verified by the reference library of
         Standard Webhooks. The secret is CALLBACK_SECRET (from the environment or .env) or the
         content of the file CALLBACK_SECRET_FILE. Use the printed address as callback_url;
         ALLOWED_ADDRESSES=127.0.0.0/8 lets the uploader reach it on this machine. Stop with
         Ctrl-C.
replay   lets the uploader resend callbacks, under the same webhook-id, by publishing their results
         again; without --execute it only shows what it would replay. Needs --task or
         --from-datetime.

Exit codes: 0 done, 1 the port is in use or a task has no result to replay, 2 wrong usage or
settings, 3 Kafka or S3 cannot be reached.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import add_execute, add_format, add_tasks, add_times


def main() -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args()
    if options.command == "replay" and not options.task and options.from_datetime is None:
        parser.error("replay needs --task or --from-datetime")
    venv.prefer()
    import config
    from common.callback import parse_secret
    from tools.callbacks.receive import receive
    from tools.callbacks.replay import replay
    from tools.topics import command
    from tools.topics.connection import check_s3, connected

    if options.command == "receive":
        try:
            for secret in options.secret or ():
                parse_secret(secret)
        except ValueError as error:
            parser.error(f"argument --secret: {error}")
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="receive|replay")
    receiving = commands.add_parser("receive", help="receive, verify and show callbacks")
    receiving.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    receiving.add_argument(
        "--port", type=int, default=8765, help="the port, 0 for a free one (default: %(default)s)"
    )
    add_format(receiving)
    receiving.add_argument(
        "--secret",
        action="append",
        metavar="WHSEC",
        help="use instead of CALLBACK_SECRET, only to try: other users of this machine can see it",
    )
    trying = receiving.add_mutually_exclusive_group()
    trying.add_argument(
        "--status", type=int, default=200, help="answer this status (default: %(default)s)"
    )
    trying.add_argument(
        "--fail-rate",
        type=float,
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
    return parser


if __name__ == "__main__":
    script.run(main)
