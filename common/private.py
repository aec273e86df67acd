"""Folders for our own user alone: secrets, and what strangers sent, lie in them."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Create *folder*, which no other user may enter, unless it exists.

    An existing folder keeps its mode: an operator may have opened it to a group. So do the folders
    above it that are missing: they get the default mode. Windows ignores modes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
