"""python scripts/models.py list|download NAME…|add FILE|verify [NAME…]: the model folder (UVR_MODEL_DIR).

`list` shows UVR's public MDX-Net models and the files that are in the folder; `download` fetches some of them,
checked, and goes on where an earlier download ended; `add` takes in an ONNX file of your own; `verify` examines
what is there. What is in the folder works without a network. Same settings as the services (.env too).
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from scripts.local import environment
from scripts.local.status_line import StatusLine

if TYPE_CHECKING:
    from common.separation.mdx import MdxSettings
    from common.separation.uvr_zoo import Fingerprint, KnownModel, Progress, Zoo

DONE, FAILED, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
BASE_URL_SETTING = "UVR_MODEL_BASE_URL"
#: No path, nothing hidden, and nothing that a shell, a task or a URL would have to quote.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.onnx")
#: The options of `add`, and UVR's keys for them.
SETTING_OPTIONS = {
    "--compensate": "compensate",
    "--dim-f": "mdx_dim_f_set",
    "--dim-t-power": "mdx_dim_t_set",
    "--n-fft": "mdx_n_fft_scale_set",
    "--primary-stem": "primary_stem",
}


class Failed(Exception):
    """Raised when this cannot go on; the message says why, and what to do."""

    code = FAILED


class WrongUsage(Failed):
    """Raised when the command line asks for what cannot be."""

    code = WRONG_USAGE


def main(arguments: Sequence[str] | None = None, *, zoo: Zoo | None = None) -> int:
    """Do what the command line asks for and return the exit code.

    Args:
        arguments: instead of the process's own.
        zoo: known models, instead of UVR's.
    """
    options = _parser().parse_args(arguments)
    environment.prefer()

    import config
    from common.errors import SettingsInvalid, UvrError
    from common.separation import uvr_zoo

    try:
        folder = config.load().uvr_model_dir
    except SettingsInvalid as error:
        return _fail(error, error.exit_code)
    try:
        return int(options.action(options, folder, uvr_zoo.load() if zoo is None else zoo))
    except Failed as error:
        return _fail(error, error.code)
    except UvrError as error:
        return _fail(error)
    except OSError as error:
        return _fail(f"{error.filename or folder}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("Interrupted; what came so far stays for the next download.")


def show(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """List the known models, then the other files of the folder."""
    rows = [_facts(model, folder) for model in zoo.values()]
    rows += [_own_facts(path) for path in _files(folder) if path.name not in zoo]
    if options.format == "json":
        for row in rows:
            print(json.dumps(row))
        return DONE
    _print_table([("MODEL", "KIND", "MB", "SDR VOC/INST", "IN FOLDER"), *map(_cells, rows)])
    print(f"\nThe folder is {folder}. SDR: median on MUSDB18-HQ in dB, where it is published.")
    return DONE


def _facts(model: KnownModel, folder: Path) -> dict[str, Any]:
    path = folder / model.file
    there = path.is_file()
    return {
        "model": model.file,
        "known": True,
        "kind": model.kind,
        "bytes": path.stat().st_size if there else model.bytes,
        "sdr_db": model.sdr_db.model_dump() if model.sdr_db else None,
        "sha256": model.sha256,
        "tail_md5": model.tail_md5,
        "in_folder": "yes" if there else "part" if path.with_name(f"{path.name}.part").is_file() else "no",
    }


def _own_facts(path: Path) -> dict[str, Any]:
    nothing = {"sdr_db": None, "sha256": None, "tail_md5": None}
    return {
        "model": path.name,
        "known": False,
        "kind": None,
        "bytes": path.stat().st_size,
        **nothing,
        "in_folder": "yes",
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    sdr = row["sdr_db"]
    return (
        row["model"],
        row["kind"] or "(your own)",
        "-" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
        f"{sdr['vocals']:.2f}/{sdr['instrumental']:.2f}" if sdr else "-",
        row["in_folder"],
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def download(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Fetch known models; one that fails does not stop the next, unless nothing can be reached."""
    from common.errors import ModelInvalid, UrlForbidden
    from common.network import printable_url
    from common.remote import Missing, Outage, Refused

    base_url = _base_url(options)
    code = DONE
    for model in [_known(name, zoo) for name in options.names]:
        try:
            _download(model, folder, base_url)
        except Outage as error:
            message = f"{model.file}: {printable_url(base_url)} cannot be reached: {error}. Run this again to go on."
            return _fail(message, UNREACHABLE)
        except (Missing, Refused, UrlForbidden) as error:
            code = _fail(f"{model.file}: {printable_url(base_url)}: {str(error).rstrip('.')}.")
        except ModelInvalid as error:
            code = _fail(f"{model.file}: {error}")
    return code


def _download(model: KnownModel, folder: Path, base_url: str) -> None:
    from common.errors import DiskFull
    from common.network import Network
    from common.separation.uvr_zoo import Mirror

    # Unlike a task's URLs, this one is the operator's own: a mirror on the inside is a good one.
    everywhere = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    with _progress(model.file) as (progress, say):
        mirror = Mirror(
            base_url,
            Network(everywhere),
            on_wait=lambda outage, tries: say(f"{model.file}: {outage}; trying again ({tries})"),
        )
        try:
            fetched = mirror.fetch(
                model, folder, progress=progress, waiting=lambda: say(f"{model.file}: waiting for another process")
            )
        except DiskFull as error:
            raise Failed(
                f"{model.file}: no room is left in {folder}. Free some and run this again to go on."
            ) from error
    checked = model.proof if model.sha256 else f"{model.proof} alone, no SHA-256 is known"
    print(f"{model.file}: {'downloaded' if fetched else 'is there already'}, checked by {checked}", flush=True)


def _known(name: str, zoo: Zoo) -> KnownModel:
    model = zoo.get(name) or zoo.get(f"{name}.onnx")
    if model is None:
        raise WrongUsage(f"{name!r} is no model that this knows. It knows: {', '.join(zoo)}.")
    return model


def _base_url(options: argparse.Namespace) -> str:
    from common.separation.uvr_zoo import RELEASE_URL

    url = str(options.base_url or os.environ.get(BASE_URL_SETTING) or RELEASE_URL)
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise WrongUsage(f"{BASE_URL_SETTING}: {url!r}: must be an http:// or https:// URL")
    return url


@contextmanager
def _progress(name: str) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Yield what shows the bytes that are there, and what says something in between."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        line = StatusLine()
        yield lambda size, total: line(f"{name}: {_amount(size, total)}"), _said_once()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield (
            lambda size, total: bar.update(task, completed=size, total=total, description=name),
            lambda text: bar.update(task, description=text),
        )


def _said_once() -> Callable[[str], None]:
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            print(text, file=sys.stderr, flush=True)

    return say


def _amount(size_bytes: int, total: int | None) -> str:
    return f"{size_bytes / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else "")


def add(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Take in a model file, once it was tried out."""
    from common.errors import DiskFull, ModelInvalid, SeparationFailed
    from common.separation import uvr_zoo

    source: Path = options.file
    if not FILE_NAME.fullmatch(source.name):
        raise WrongUsage(f"{source.name!r}: rename it: letters, digits, '.', '_' and '-', and .onnx at the end.")
    found = uvr_zoo.Fingerprint.of(source)
    line = StatusLine()
    with uvr_zoo.alone(folder, lambda: line("waiting for another process")):
        _check_free(source, folder, found, zoo)
        settings, write = _settings(options, folder / source.name, source, found, zoo)
        try:
            uvr_zoo.adopt(source, folder, settings, write_settings=write)
        except (ModelInvalid, SeparationFailed) as error:
            return _fail(f"{source}: it is not added: {error}")
        except DiskFull as error:
            raise Failed(f"{source}: no room is left in {folder}.") from error
    known = found.model(zoo)
    print(f"{folder / source.name}: added, {known.file if known else 'a model of your own'}")
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


def _settings(
    options: argparse.Namespace, target: Path, source: Path, found: Fingerprint, zoo: Zoo
) -> tuple[MdxSettings, bool]:
    """Return what the model is to be run with, and whether the folder must be told."""
    from common.errors import ModelInvalid
    from common.separation import uvr_zoo

    given = {key: vars(options)[key] for key in SETTING_OPTIONS.values() if vars(options)[key] is not None}
    listed = uvr_zoo.listed_settings(target, found.tail_md5)
    known = found.model(zoo)
    words = listed or uvr_zoo.listed_settings(source, found.tail_md5) or {}
    if known and not words:
        words = known.settings.model_dump(by_alias=True)
    missing = [option for option, key in SETTING_OPTIONS.items() if key not in {**words, **given}]
    if missing:
        raise WrongUsage(f"{source}: nobody lists this model's settings; give them: {' '.join(missing)}")
    try:
        return uvr_zoo.parse_settings({**words, **given}), bool(given) or listed is None
    except ModelInvalid as error:
        raise (WrongUsage(str(error)) if given else error) from error


def verify(options: argparse.Namespace, folder: Path, zoo: Zoo) -> int:
    """Examine models; fail if one is bad."""
    from common.separation import models, uvr_zoo

    paths = [models.find(folder, _file_name(name)) for name in options.names] or _files(folder)
    bad = False
    for path in paths:
        verdict = uvr_zoo.examine(path, zoo)
        bad = bad or verdict.problem is not None
        row = {"model": verdict.file, "ok": verdict.problem is None, **asdict(verdict)}
        del row["file"]
        print(json.dumps(row) if options.format == "json" else _in_words(row), flush=True)
    if not paths and options.format == "text":
        print(f"There is no model in {folder}.")
    return FAILED if bad else DONE


def _in_words(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"{row['model']}: BAD: {row['problem']}"
    if not row["known_as"]:
        return (
            f"{row['model']}: ok: unknown, so there is no hash to compare; loads, runs, has the shape of its settings"
        )
    alias = "" if row["known_as"] == row["model"] else f"is {row['known_as']}; "
    return f"{row['model']}: ok: {alias}{row['checked_by']} right, loads, runs, has the shape of its settings"


def _file_name(name: str) -> str:
    return name if name.endswith(".onnx") else f"{name}.onnx"


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
        epilog="Exit codes: 0 done, 1 failed (verify: a model is bad), 2 wrong usage, 3 the mirror cannot be reached.",
    )
    commands = parser.add_subparsers(required=True, metavar="list|download|add|verify")
    listing = _command(commands, "list", show, "show the known models and what is in the folder")
    _add_format(listing)
    fetching = _command(
        commands,
        "download",
        download,
        "fetch known models into the folder",
        "A download that breaks off leaves NAME.onnx.part, where the next one goes on. A file gets its name once its "
        "size and hash are right. Proxies of the environment are not used: without a way out, name a mirror, or "
        "fetch the file by other means and `add` it.",
    )
    fetching.add_argument("names", nargs="+", metavar="NAME", help="as `list` shows it, with or without .onnx")
    fetching.add_argument(
        "--base-url", metavar="URL", help=f"where the files lie ({BASE_URL_SETTING}; else UVR's own release on GitHub)"
    )
    _add_add(commands)
    examining = _command(commands, "verify", verify, "examine the models in the folder: hash, loading, shape")
    examining.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    _add_format(examining)
    return parser


def _add_add(commands: Any) -> None:  # noqa: ANN401 -- argparse's type is private
    adding = _command(
        commands,
        "add",
        add,
        "copy a model file of your own into the folder",
        "The settings are needed for a model that neither UVR's registry (mdx_model_data.json) nor a FILE.json beside "
        "it lists; they are written into the folder as FILE.json, with UVR's keys. They are the training's: wrong "
        "ones make it run and sound bad.",
    )
    adding.add_argument("file", type=Path, metavar="FILE", help="an MDX-Net in ONNX")
    options: Iterable[tuple[str, dict[str, Any]]] = (
        ("--compensate", {"type": float, "metavar": "X", "help": "what its output is multiplied by, such as 1.035"}),
        ("--dim-f", {"type": int, "metavar": "BINS", "help": "how many bins it takes, such as 3072"}),
        ("--dim-t-power", {"type": int, "metavar": "N", "help": "it takes 2^N columns, such as 8"}),
        ("--n-fft", {"type": int, "metavar": "N", "help": "the length of its Fourier transform, such as 6144"}),
        ("--primary-stem", {"choices": ("Vocals", "Instrumental"), "help": "what it gives out"}),
    )
    for option, how in options:
        adding.add_argument(option, dest=SETTING_OPTIONS[option], **how)


def _command(
    commands: Any,  # noqa: ANN401 -- argparse's type is private
    name: str,
    action: Callable[[argparse.Namespace, Path, Zoo], int],
    summary: str,
    more: str = "",
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}"
    )
    command.set_defaults(action=action)
    return command


def _add_format(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", choices=("text", "json"), default="text", help="json: a line per model (text)")


if __name__ == "__main__":
    sys.exit(main())
