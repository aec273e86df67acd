"""Check sources and options as a submission would, without sending anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import config
from common.addresses import AddressPolicy, resolve
from common.http_url import HttpUrl
from common.input_files import open_input
from common.messages import Task
from common.source_folders import checked_object
from tools.submit.source_upload import upload_place
from tools.submit.sources import Source, find
from tools.submit.submit import PROBLEMS, check_form, problem_of, task_of
from tools.terminal.tables import rows, say
from tools.topics.command import DONE, FAILED, WrongUsage


def check(options: argparse.Namespace) -> int:
    """Print a line for each source, and return the exit code: 0 if all of them can be sent."""
    settings = config.load()
    refused: list[tuple[str, WrongUsage]] = []
    sources = find(options.sources, lambda name, error: refused.append((name, error)))
    if options.task_uuid and len(sources) > 1:
        raise WrongUsage(f"--task-uuid needs exactly one source; there are {len(sources)}.")
    with rows(("source", "check", "problem"), as_json=options.json) as output:
        problems = [(name, str(error).removeprefix(f"{name}: ")) for name, error in refused]
        problems += _problems(sources, options, settings)
        for name, problem in problems:
            output.add({"source": name, "check": "bad" if problem else "ok", "problem": problem})
    bad = sum(1 for _, problem in problems if problem)
    say(f"{len(problems) - bad} of {len(problems)} can be sent. Nothing was sent.")
    return FAILED if bad else DONE


def _problems(
    sources: list[Source], options: argparse.Namespace, settings: config.Settings
) -> Iterator[tuple[str, str]]:
    """Yield each source with what is wrong with it, which is empty if nothing is."""
    names: dict[str, str] = {}
    for source in sources:
        name, problem = source.line or str(source.location), ""
        try:
            task = task_of(source, options)
            _check(source, task, options, settings)
            if task.task_uuid in names:
                problem = f"has the task_uuid of {names[task.task_uuid]}: {task.task_uuid}"
            names.setdefault(task.task_uuid, name)
        except PROBLEMS as error:
            problem = problem_of(source, error)
        yield name, problem


def _check(
    source: Source, task: Task, options: argparse.Namespace, settings: config.Settings
) -> None:
    """Check one source by the rules of the processors, with the settings that are here.

    Raises:
        WrongUsage, TaskError, OSError: it is not as it must be.
    """
    check_form(source, task, settings)
    if task.callback_url is not None:
        _check_address(task.callback_url, settings)
    if isinstance(source.location, Path):
        if not options.serve:
            upload_place(settings)
        with source.location.open("rb") as file:
            _check_size(file.seek(0, 2), settings)
        return
    scheme = source.location.partition(":")[0].lower()
    if scheme == "s3":
        checked_object(source.location, settings.s3_source_buckets)
    elif scheme == "file":
        with open_input(source.location, settings.input_dir) as file:
            _check_size(file.seek(0, 2), settings)
    else:
        _check_address(source.location, settings)


def _check_address(url: str, settings: config.Settings) -> None:
    """Check the address that *url* may name; names are not resolved."""
    with suppress(ValueError):
        address = ip_address(HttpUrl.parse(url).host)
        AddressPolicy(settings.allowed_addresses, resolve).check(address)


def _check_size(size_bytes: int, settings: config.Settings) -> None:
    if not size_bytes:
        raise WrongUsage("the file has no bytes")
    if size_bytes > settings.max_download_bytes:
        raise WrongUsage(
            f"the file has {size_bytes} bytes; MAX_DOWNLOAD_BYTES is {settings.max_download_bytes}"
        )
