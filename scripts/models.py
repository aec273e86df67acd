"""python scripts/models.py list|download NAME…|add FILE|verify [NAME…]: the model folder (UVR_MODEL_DIR).

`list` shows UVR's public MDX-Net models and the files that are in the folder; `download` fetches some of them,
checked, and goes on where an earlier download ended; `add` takes in an ONNX file of your own; `verify` examines
what is there. What is in the folder works without a network. Same settings as the services (.env too); docs/models.md.
"""

from __future__ import annotations

import argparse
import io
import ipaddress
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from scripts.local import environment, lock
from scripts.local.status_line import StatusLine

if TYPE_CHECKING:
    from common.remote import Backoff
    from common.separation.mdx import MdxSettings
    from common.separation.uvr_zoo import Fingerprint, KnownModel, Verdict, Zoo

DONE, FAILED, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
BASE_URL_SETTING = "UVR_MODEL_BASE_URL"
#: No path, nothing hidden, and nothing that a shell, a task or a URL would have to quote.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.onnx")


class Failed(Exception):
    """Raised when this cannot go on; the message says why, and what to do."""

    code = FAILED


class WrongUsage(Failed):
    """Raised when the command line asks for what cannot be."""

    code = WRONG_USAGE


def main(arguments: Sequence[str] | None = None, *, zoo: Zoo | None = None, backoff: Backoff | None = None) -> int:
    """Do what the command line asks for and return the exit code.

    Args:
        arguments: instead of the process's own.
        zoo: known models, instead of UVR's.
        backoff: the waits between tries of a download, instead of the usual.
    """
    options = _parser().parse_args(arguments)
    options.backoff = backoff
    environment.prefer()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # files can have names that this terminal cannot show

    import config
    from common.errors import DiskFull, SettingsInvalid, UvrError
    from common.separation import uvr_zoo

    try:
        folder = config.load().uvr_model_dir
    except SettingsInvalid as error:
        return _fail(error, error.exit_code)
    try:
        return int(options.action(options, folder, uvr_zoo.load() if zoo is None else zoo))
    except Failed as error:
        return _fail(error, error.code)
    except DiskFull:
        return _fail(f"No room is left in {folder}. Free some and run this again; a download goes on where it was.")
    except UvrError as error:
        return _fail(error)
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("Interrupted; what came so far stays for the next download.")


def show(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """List the known models, then the other files of the folder."""
    rows = [_facts(folder / name, model) for name, model in zoo.items()]
    rows += [_facts(path, None) for path in _files(folder) if path.name not in zoo]
    if options.json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return DONE
    table = [("MODEL", "KIND", "MB", "CHECKED BY", "IN FOLDER"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(map(str.ljust, cells, widths)).rstrip(), flush=True)
    print(f"\nThe folder is {folder}. `list --json` shows the hashes.", flush=True)
    return DONE


def _facts(path: Path, model: KnownModel | None) -> dict[str, Any]:
    there = path.is_file()
    return {
        "model": path.name,
        "kind": model and model.kind,
        "bytes": path.stat().st_size if there else model and model.bytes,
        "sha256": model and model.sha256,
        "tail_md5": model and model.tail_md5,
        "in_folder": "yes" if there else "part" if path.with_name(f"{path.name}.part").is_file() else "no",
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["model"],
        row["kind"] or "(your own)",
        "-" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
        "SHA-256" if row["sha256"] else "MD5 of its end" if row["tail_md5"] else "-",
        row["in_folder"],
    )


def download(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Fetch known models; one that fails does not stop the next, unless nothing can be reached."""
    from common.errors import ModelInvalid, UrlForbidden
    from common.network import printable_url
    from common.remote import Missing, Outage, Refused

    base_url = _base_url(options)
    code = DONE
    for model in [_known(name, zoo) for name in options.names]:
        line = StatusLine()
        try:
            fetched = _download(model, folder, base_url, line, options.backoff)
        except Outage as error:
            message = f"{model.file}: {printable_url(base_url)} cannot be used now: {error}. Run this again to go on."
            return _fail(message, UNREACHABLE)
        except (Missing, Refused, UrlForbidden) as error:
            code = _fail(f"{model.file}: {printable_url(base_url)}: {str(error).rstrip('.')}.")
        except ModelInvalid as error:
            code = _fail(f"{model.file}: {error}")
        else:
            print(
                f"{model.file}: {'downloaded' if fetched else 'is there already'}, checked by {model.proof}", flush=True
            )
        finally:
            line.finish()
    return code


def _download(model: KnownModel, folder: Path, base_url: str, line: StatusLine, backoff: Backoff | None) -> bool:
    from common.network import Network
    from common.remote import Backoff
    from common.separation.uvr_zoo import Mirror

    # Unlike a task's URLs, this one is the operator's own: a mirror on the inside is a good one.
    everywhere = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    mirror = Mirror(
        base_url,
        Network(everywhere),
        on_wait=lambda outage, tries: line.finish(f"{model.file}: {outage}; trying again ({tries})"),
        backoff=backoff or Backoff(),
    )
    with _alone(folder, line):
        return mirror.fetch(model, folder, lambda size, total: line(f"{model.file}: {_amount(size, total)}"))


def _alone(folder: Path, line: StatusLine) -> AbstractContextManager[None]:
    """Change *folder* as the only process that does."""
    return lock.exclusive(folder / ".lock", lambda: line("waiting for another process to change the folder"))


def _known(name: str, zoo: Zoo) -> KnownModel:
    model = zoo.get(name) or zoo.get(f"{name}.onnx")
    if model is None:
        raise WrongUsage(f"{name!r} is no model that this knows. It knows: {', '.join(zoo)}.")
    return model


def _base_url(options: argparse.Namespace) -> str:
    from common.separation.uvr_zoo import RELEASE_URL

    url = str(options.base_url or os.environ.get(BASE_URL_SETTING) or RELEASE_URL)
    try:
        usable = urlsplit(url).scheme in {"http", "https"} and bool(urlsplit(url).hostname)
    except ValueError:
        usable = False
    if not usable:
        raise WrongUsage(f"{BASE_URL_SETTING}: {url!r}: must be an http:// or https:// URL")
    return url


def _amount(size_bytes: int, total: int | None) -> str:
    return f"{size_bytes / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else "")


def add(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Take in a model file, once it was tried out."""
    from common.errors import ModelInvalid, SeparationFailed
    from common.separation import uvr_zoo

    source: Path = options.file
    if not FILE_NAME.fullmatch(source.name):
        raise WrongUsage(f"{source.name!r}: rename it: letters, digits, '.', '_' and '-', and .onnx at the end.")
    found = uvr_zoo.Fingerprint.of(source)
    with _alone(folder, StatusLine()):
        _check_free(source, folder, found, zoo)
        try:
            uvr_zoo.adopt(source, folder, _settings(source, folder, found, zoo))
        except (ModelInvalid, SeparationFailed) as error:
            raise Failed(f"{source}: it is not added: {error}") from error
    known = found.model(zoo)
    print(f"{folder / source.name}: added, {f'it is {known.file}' if known else 'a model of your own'}", flush=True)
    return DONE


def _check_free(source: Path, folder: Path, found: Fingerprint, zoo: Zoo) -> None:
    """See that the name means no other model."""
    from common.separation import uvr_zoo

    known = zoo.get(source.name)
    if known and (fault := known.fault(found)):
        raise Failed(f"{source}: UVR has another model of this name ({fault}). Rename yours.")
    target = folder / source.name
    if target.exists() and uvr_zoo.Fingerprint.of(target) != found:
        raise Failed(f"{target} is there already, and is another model. Rename yours, or move that one away.")


def _settings(source: Path, folder: Path, found: Fingerprint, zoo: Zoo) -> MdxSettings:
    """Return what is said of the model: beside it, in the folder, or among the known ones."""
    from common.separation import uvr_zoo

    listed = uvr_zoo.listed_settings(source, found.tail_md5)
    listed = listed or uvr_zoo.listed_settings(folder / source.name, found.tail_md5)
    if listed:
        return listed
    if known := found.model(zoo):
        return known.settings
    words = f"Write them into {uvr_zoo.sidecar(source)}, as docs/models.md says."
    raise Failed(f"{source}: nobody lists this model's settings. {words}")


def verify(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Examine models; fail if one is bad."""
    from common.separation import models, uvr_zoo

    names = [name if name.endswith(".onnx") else f"{name}.onnx" for name in options.names]
    paths = [models.find(folder, name) for name in names] or _files(folder)
    code = DONE
    for path in paths:
        verdict = uvr_zoo.examine(path, zoo)
        if verdict.problem:
            code = FAILED
        print(_as_json(verdict) if options.json else _in_words(verdict), flush=True)
    if not paths and not options.json:
        print(f"There is no model in {folder}.", flush=True)
    return code


def _as_json(verdict: Verdict) -> str:
    known_as = verdict.model and verdict.model.file
    return json.dumps(
        {"model": verdict.file, "ok": not verdict.problem, "known_as": known_as, "problem": verdict.problem}
    )


def _in_words(verdict: Verdict) -> str:
    if verdict.problem:
        return f"{verdict.file}: BAD: {verdict.problem}"
    if verdict.model is None:
        checked = "unknown, so there is no hash to compare"
    else:
        alias = "" if verdict.model.file == verdict.file else f"is {verdict.model.file}; "
        checked = f"{alias}{verdict.model.proof} right"
    return f"{verdict.file}: ok: {checked}; loads, runs, has the shape of its settings"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.onnx") if path.is_file())


def _fail(message: object, code: int = FAILED) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="models.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done, 1 failed (verify: a model is bad), 2 wrong usage, 3 the mirror cannot be used now.",
    )
    commands = parser.add_subparsers(required=True, metavar="list|download|add|verify")
    listing = commands.add_parser("list", help="show the known models and what is in the folder")
    listing.set_defaults(action=show)
    fetching = commands.add_parser("download", help="fetch known models into the folder")
    fetching.set_defaults(action=download)
    fetching.add_argument("names", nargs="+", metavar="NAME", help="as `list` shows it, with or without .onnx")
    fetching.add_argument(
        "--base-url", metavar="URL", help=f"where the files lie ({BASE_URL_SETTING}; else UVR's own release on GitHub)"
    )
    adding = commands.add_parser("add", help="copy a model file of your own into the folder")
    adding.set_defaults(action=add)
    adding.add_argument("file", type=Path, metavar="FILE", help="an MDX-Net in ONNX, its settings in FILE.json")
    examining = commands.add_parser("verify", help="examine the models in the folder: hash, loading, shape")
    examining.set_defaults(action=verify)
    examining.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    for command in (listing, examining):
        command.add_argument("--json", action="store_true", help="a line of JSON per model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
