"""The record beside a song's stems, by which a later run knows that the song is done."""

from __future__ import annotations

import argparse
import hashlib
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from common.messages import Format, Message, Result, StemNames

FILE = "separation.json"


class Choices(Message):
    """What was asked for; another choice of any of it is another separation."""

    engine: str
    model: str
    format: Format
    bitrate_kbps: int | None
    bit_depth: int | None
    stems: StemNames

    @classmethod
    def of(cls, options: argparse.Namespace) -> Choices:
        """Return the choices of the command line."""
        return cls(
            engine=options.engine,
            model=options.model,
            format=options.format,
            bitrate_kbps=options.bitrate,
            bit_depth=options.bit_depth,
            stems=options.stems,
        )


class Record(Message):
    """A separation that succeeded."""

    choices: Choices
    result: Result

    def write(self, folder: Path) -> None:
        """Write the record into *folder*, whole or not at all."""
        part = folder / f"{FILE}.part"
        part.write_bytes(self.encode())
        part.replace(folder / FILE)


def done(song: Path, folder: Path, output: Path, choices: Choices) -> Result | None:
    """Return the result in *folder* if it is of this *song*, by these *choices*, and whole.

    The song's content decides, by its SHA-256, and not its name or time; the stems must have
    their sizes.
    """
    with suppress(OSError, ValidationError):
        record = Record.model_validate_json((folder / FILE).read_bytes())
        result = record.result
        if record.choices != choices or result.stems is None or result.receipt is None:
            return None
        if not song.is_file():  # a pipe would wait for its other end
            return None
        for stem in result.stems.by_name().values():
            if (output / stem.path).stat().st_size != stem.bytes:
                return None
        with song.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return result if sha256 == result.receipt.source.sha256 else None
    return None


def forget(folder: Path) -> None:
    """Remove the record of *folder*, whose stems are about to change."""
    with suppress(OSError):
        (folder / FILE).unlink()
