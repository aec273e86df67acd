"""python scripts/submit.py SOURCE… [--model FILE] [--format FORMAT] [--callback-url URL] [--wait]
[--output DIR] python scripts/submit.py --resume FILE [--output DIR]

Orders songs: tasks onto the task topic, with the progress of each, until their stems stand in S3. A
SOURCE is an audio file, a folder of them, a URL (http, https, s3, file), or a list: .csv with a
heading, or .jsonl. A list says in `source` (or `audio_url`) where a song is, and may give
task_uuid, callback_url, model, output_format and metadata.

Files are put into S3 below {S3_PREFIX}sources/, where they stay; with --serve they are served from
here instead, while this waits, which the processors must be allowed to reach (ALLOWED_ADDRESSES).
What was sent is noted in data/submitted; Ctrl-C ends the waiting, not the tasks, and --resume goes
on with it. Same settings as the services.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from kafka import TopicPartition
from loguru import logger

import config
from common.errors import InvalidTask, ProcessError, TaskError
from common.messages import Format, Task
from common.preparation import prepare
from tools.submit import offer
from tools.submit.book import Book, Order, new_book
from tools.submit.offer import Offer
from tools.submit.sources import Source, find
from tools.submit.waiting import Ending, Waiting
from tools.terminal.progress_bars import shown
from tools.terminal.tables import json_line, printable, say
from tools.topics import command
from tools.topics.command import DONE, FAILED, WrongUsage
from tools.topics.reader import Topics, topics
from tools.topics.sender import Sender, sender

#: Some time passes between a record's making, which bears the producer's clock, and the note of it.
MARGIN_MS = 60_000
BOOKS = Path("data/submitted")

Begins = Mapping[TopicPartition, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.sources) == bool(options.resume):
        parser.error("give sources, or --resume FILE")
    options.wait = options.wait or options.serve or options.output is not None
    logger.remove()  # what the services would log of this, the output says
    return command.run(lambda: resume(options) if options.resume else submit(options))


def submit(options: argparse.Namespace) -> int:
    """Send a task for each source, and wait for them if that is wanted."""
    settings = _settings(options)
    sources = find(options.sources)
    if options.task_uuid and len(sources) > 1:
        raise WrongUsage(f"--task-uuid is for one source; there are {len(sources)}.")
    tasks = [_task(source, options) for source in sources]
    # As whatever submits tasks must: what is sent before the first process starts would otherwise
    # be skipped.
    prepare(settings.kafka, settings.topology, "processor", settings.startup_timeout_seconds)
    book = new_book(BOOKS)
    with topics(settings.kafka, settings.startup_timeout_seconds) as read:
        begins = {place: span.end for place, span in read.spans(_heard(settings)).items()}
        with (
            _offering(options, settings, sources) as offered,
            _resumable(book, options),
            sender(settings.kafka) as send,
        ):
            orders = [
                _send(settings, source, task, offered, send, book)
                for source, task in zip(sources, tasks, strict=True)
            ]
            if options.wait:
                return _wait(options, settings, read, begins, orders)
    for order in orders:
        facts = {
            "name": order.name,
            "task_uuid": order.task_uuid,
            "origin": order.origin.model_dump(),
        }
        print(json_line(facts) if options.json else f"{order.name}\t{order.task_uuid}")
    say(f"To wait for them: python scripts/submit.py --resume {book.file}")
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Go on waiting for what was submitted."""
    settings = _settings(options)
    book = Book(options.resume)
    orders = book.read()
    since_ms = int(min(order.sent for order in orders).timestamp() * 1000) - MARGIN_MS
    with (
        topics(settings.kafka, settings.startup_timeout_seconds) as read,
        _resumable(book, options),
    ):
        begins = {
            place: span.begin for place, span in read.spans(_heard(settings), since_ms).items()
        }
        return _wait(options, settings, read, begins, orders)


def _settings(options: argparse.Namespace) -> config.Settings:
    settings = config.load()
    if options.output and not settings.s3_bucket:
        raise WrongUsage("--output fetches stems from S3, but S3_BUCKET is not set.")
    return settings


def _heard(settings: config.Settings) -> list[str]:
    return [settings.kafka_progress_topic, settings.kafka_result_topic]


def _task(source: Source, options: argparse.Namespace) -> Task:
    """Make the task, but for the URL of a file that is not offered yet."""
    wishes = {
        "model": options.model,
        "output_format": options.format,
        "callback_url": options.callback_url,
    }
    place = source.place if isinstance(source.place, str) else "s3://"
    task_uuid = options.task_uuid or str(uuid.uuid4())
    try:
        return Task.decode(
            json_line(
                {"task_uuid": task_uuid, "audio_url": place, **wishes, **source.wishes}
            ).encode()
        )
    except InvalidTask as error:
        raise WrongUsage(f"{source.place}: {error.message}") from error


def _send(
    settings: config.Settings, source: Source, task: Task, offered: Offer, send: Sender, book: Book
) -> Order:
    if isinstance(source.place, Path):
        task = task.model_copy(update={"audio_url": offered(task.task_uuid, source.place)})
    origin = send.send(settings.kafka_task_topic, task.task_uuid.encode(), task.encode(), ())
    order = Order(name=source.name, task_uuid=task.task_uuid, origin=origin)
    book.note(order)
    return order


def _wait(
    options: argparse.Namespace,
    settings: config.Settings,
    read: Topics,
    begins: Begins,
    orders: Sequence[Order],
) -> int:
    """Show how each order ends, and fetch its stems; return the exit code."""
    failed = 0
    with shown({order.task_uuid: order.name for order in orders}) as show:
        waiting = Waiting(settings, orders, show, earlier=options.resume is not None)
        for ending in waiting.endings(read, begins):
            files = (
                waiting.fetch(ending, options.output / ending.order.name) if options.output else {}
            )
            print(_json(ending, files) if options.json else _line(ending, files), flush=True)
            failed += ending.status == "failed"
    say(f"{len(orders) - failed} of {len(orders)} succeeded.")
    return FAILED if failed else DONE


def _json(ending: Ending, files: Mapping[str, Path]) -> str:
    return json_line(
        {
            "name": ending.order.name,
            "task_uuid": ending.order.task_uuid,
            "status": ending.status,
            "error": ending.error.model_dump() if ending.error else None,
            "stems": ending.stems.model_dump() if ending.stems else {},
            "files": {name: str(file) for name, file in files.items()},
        }
    )


def _line(ending: Ending, files: Mapping[str, Path]) -> str:
    what = f"{ending.error.code}: {ending.error.message}" if ending.error else ""
    keys = [ending.stems.vocals.key, ending.stems.instrumental.key] if ending.stems else []
    where = [str(file) for file in files.values()] or keys
    cells = [
        ending.order.name,
        ending.order.task_uuid,
        ending.status,
        *where,
        *([what] if what else []),
    ]
    return "\t".join(printable(cell) for cell in cells)


@contextmanager
def _offering(
    options: argparse.Namespace, settings: config.Settings, sources: Sequence[Source]
) -> Iterator[Offer]:
    """Yield what offers files to the processors."""
    if options.serve:
        with offer.served(options.serve_host) as offered:
            yield offered
    elif any(isinstance(source.place, Path) for source in sources):
        with offer.in_s3(settings) as offered:
            yield offered
    else:
        yield lambda _task_uuid, file: str(file)  # there are none


@contextmanager
def _resumable(book: Book, options: argparse.Namespace) -> Iterator[None]:
    """Say, if this ends before the tasks do, how to find them again."""
    try:
        yield
    except (KeyboardInterrupt, ProcessError, TaskError):
        if book.file.exists():
            output = f" --output {options.output}" if options.output else ""
            say(
                f"The tasks go on. To wait for them: python scripts/submit.py --resume {book.file}{output}"
            )
            if options.serve:
                say("Their files are served no longer: those that were not fetched yet will fail.")
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submit.py",
        description=__doc__,
        epilog="Exit codes: 0 all were sent, and with --wait all succeeded; 1 one failed; 2 wrong usage or settings; "
        "3 Kafka or S3 cannot be reached; 130 Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="*", metavar="SOURCE", help="files, folders, URLs, .csv or .jsonl lists"
    )
    parser.add_argument("--model", help="a file in the processors' UVR_MODEL_DIR (their UVR_MODEL)")
    parser.add_argument(
        "--format", choices=get_args(Format), help="of the stems (the processors' OUTPUT_FORMAT)"
    )
    parser.add_argument("--callback-url", metavar="URL", help="told how each task ends")
    parser.add_argument(
        "--task-uuid", type=command.task_uuid, help="the id of the one task (a new uuid4)"
    )
    parser.add_argument(
        "--wait", action="store_true", help="until each task has ended, and show how"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="and fetch the stems to DIR/<name>/"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="wait for what was submitted earlier"
    )
    parser.add_argument(
        "--serve", action="store_true", help="serve files from here instead of putting them into S3"
    )
    parser.add_argument(
        "--serve-host", default="127.0.0.1", metavar="HOST", help="at this address (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each task")
    return parser


if __name__ == "__main__":
    sys.exit(main())
