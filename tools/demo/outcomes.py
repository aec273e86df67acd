"""Show the outcomes of songs: their stems as keys and files, their receipts, the groups' lag."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.messages import STEMS, Receipt
from tools.demo.pipeline import BUCKET, PROCESSOR_GROUP, UPLOADER_GROUP, Delivery, LocalPipeline
from tools.environment.venv import ROOT
from tools.local_s3.server import fetch
from tools.songs import names

#: Of the table that kafka-consumer-groups prints.
LAG_COLUMN = 5


@dataclass(frozen=True)
class Song:
    """A file to separate, its label in the task's id, and the folder for its stems."""

    file: Path
    label: str
    folder: Path


def name_songs(files: Sequence[Path], stems: Path) -> list[Song]:
    """Give each file its own folder in *stems*, files of the same name too."""
    songs: dict[str, Song] = {}
    for file in files:
        stem = names.folder_name(file.stem)
        name = names.free(stem, lambda free: names.key(free) in songs)
        label = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:64]
        songs[names.key(name)] = Song(file, label, stems / name)
    return list(songs.values())


def show(task_uuid: str, song: Song, delivery: Delivery) -> bool:
    """Show a song's outcome, download its stems, and return whether everything is right."""
    data = delivery.payload["data"]
    signature = (
        "callback verified" if delivery.verified else f"callback NOT verified: {delivery.problem}"
    )
    print(f"\n{names.shown(song.file.name)}: {data['status']} as {task_uuid}, {signature}")
    if data["status"] != "succeeded":
        print(f"  {data['error']['code']}: {data['error']['message']}", flush=True)
        return False
    whole = [_show_stem(stem, data[stem], song.folder) for stem in STEMS if stem in data]
    receipt = Receipt.model_validate(data["receipt"])
    model = f" {receipt.model}" if receipt.model else ""
    residual = (
        "not measured (lossy)" if receipt.residual_db is None else f"{receipt.residual_db:.0f} dB"
    )
    print(
        f"  engine {receipt.engine}{model} on {receipt.device}, "
        f"{receipt.source.seconds:.1f} s of audio in {receipt.seconds.separate:.1f} s "
        f"({receipt.realtime_factor:.1f} times real time), residual {residual}",
        flush=True,
    )
    return all(whole)


def report(pipeline: LocalPipeline, tasks: Sequence[str], folder: Path) -> None:
    """Write a page for each task to *folder*, and show where they are or what went wrong."""
    script = str(ROOT / "scripts" / "report.py")
    command = [sys.executable, script, *tasks, "--output", str(folder), "--format", "json"]
    done = subprocess.run(
        command, env=pipeline.environment, capture_output=True, text=True, check=False
    )
    pages = [Path(json.loads(line)["path"]) for line in done.stdout.splitlines()]
    print("\nOpen in a browser, to look and listen:" if pages else "\nNo pages were written.")
    for page in pages:
        print(f"  {_short(page)}")
    told = (line for line in done.stderr.splitlines() if not line.startswith("Connecting to "))
    print("\n".join(told).rstrip(), flush=True)


def describe_groups(pipeline: LocalPipeline) -> bool:
    """Show both groups by kafka-consumer-groups; return whether all partitions have LAG 0."""
    tool = pipeline.broker.tool("kafka-consumer-groups")
    groups = ["--group", PROCESSOR_GROUP, "--group", UPLOADER_GROUP]
    arguments = ["--bootstrap-server", pipeline.broker.bootstrap_servers, "--describe", *groups]
    # A callback comes before the commit of its result's offset: LAG may remain for a moment.
    deadline = time.monotonic() + 30
    while True:
        done = subprocess.run([str(tool), *arguments], capture_output=True, text=True, check=False)
        if no_lag(done.stdout) or time.monotonic() > deadline:
            break
        pipeline.check()
    lines = done.stdout.strip().splitlines()
    # Without the many partitions of callback retries that have no lag.
    shown = [
        line for line in lines if "_callback_retry_" not in line or line.split()[LAG_COLUMN] != "0"
    ]
    if hidden := len(lines) - len(shown):
        shown.append(f"({hidden} partitions of callback retries: LAG 0)")
    shown = [f"\n$ {tool.name} {' '.join(arguments)}", *shown, done.stderr]
    print("\n".join(shown).rstrip(), flush=True)
    return no_lag(done.stdout)


def no_lag(described: str) -> bool:
    """Return whether both groups were described and all their partitions have LAG 0."""
    rows = [line.split() for line in described.splitlines()]
    lags = {
        group: [row[LAG_COLUMN] for row in rows if row[:1] == [group] and len(row) > LAG_COLUMN]
        for group in (PROCESSOR_GROUP, UPLOADER_GROUP)
    }
    return all(lags.values()) and {lag for found in lags.values() for lag in found} == {"0"}


def _show_stem(name: str, stem: Mapping[str, Any], folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.{stem['format']}"
    fetch(stem["url"], file)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    whole = (file.stat().st_size, sha256) == (stem["bytes"], stem["sha256"])
    fault = "" if whole else "  DIFFERS from the size and hash in the callback"
    print(
        f"  {name:12}  s3://{BUCKET}/{stem['key']}  {stem['bytes']:,} bytes  {_short(file)}{fault}"
    )
    return whole


def _short(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
