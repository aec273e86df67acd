"""What came of songs, shown: their stems as keys and as files, their receipts, and the groups' lag."""

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

#: A callback comes before its result's offset is committed, so that lag may be left for a moment.
LAG_SECONDS = 30.0
MAX_LABEL_CHARACTERS = 64
LAG_COLUMN = 5


@dataclass(frozen=True)
class Song:
    """A file to separate, what to call it in a task's id, and the folder for its stems."""

    file: Path
    label: str
    folder: Path


def name_songs(files: Sequence[Path], stems: Path) -> list[Song]:
    """Give each file a folder in *stems*; files of the same name get folders of their own."""
    songs: dict[str, Song] = {}
    for file in files:
        name = names.free(file.stem, songs.__contains__)
        label = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:MAX_LABEL_CHARACTERS]
        songs[name] = Song(file, label, stems / name)
    return list(songs.values())


def show(task_uuid: str, song: Song, delivery: Delivery) -> bool:
    """Show what came of a song, fetch its stems, and tell whether all is as it should be."""
    data = delivery.payload["data"]
    signature = (
        "callback verified" if delivery.verified else f"callback NOT verified: {delivery.problem}"
    )
    print(f"\n{song.file.name}: {data['status']} as {task_uuid}, {signature}")
    if data["status"] != "succeeded":
        print(f"  {data['error']['code']}: {data['error']['message']}", flush=True)
        return False
    whole = [_show_stem(stem, data[stem], song.folder) for stem in STEMS]
    print(f"  {_in_one_line(Receipt.model_validate(data['receipt']))}", flush=True)
    return all(whole)


def report(pipeline: LocalPipeline, tasks: Sequence[str], folder: Path) -> None:
    """Write a page for each task into *folder*, and show where; or why there is none."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "report.py"),
        *tasks,
        "--output",
        str(folder),
        "--format",
        "json",
    ]
    done = subprocess.run(
        command, env=pipeline.environment, capture_output=True, text=True, check=False
    )
    pages = [Path(json.loads(line)["path"]) for line in done.stdout.splitlines()]
    print(
        "\nOpen in a browser, to look and listen:" if pages else "\nThere are no pages to look at."
    )
    for page in pages:
        print(f"  {_short(page)}")
    print(done.stderr.rstrip(), flush=True)


def describe_groups(pipeline: LocalPipeline) -> bool:
    """Show what kafka-consumer-groups says of both groups, and tell whether it says LAG 0 of every
    partition.
    """
    tool = pipeline.broker.tool("kafka-consumer-groups")
    groups = ["--group", PROCESSOR_GROUP, "--group", UPLOADER_GROUP]
    arguments = ["--bootstrap-server", pipeline.broker.bootstrap_servers, "--describe", *groups]
    deadline = time.monotonic() + LAG_SECONDS
    while True:
        done = subprocess.run([str(tool), *arguments], capture_output=True, text=True, check=False)
        if no_lag(done.stdout) or time.monotonic() > deadline:
            shown = _without_retries(done.stdout.strip())
            print(
                f"\n$ {tool.name} {' '.join(arguments)}\n{shown}\n{done.stderr}".rstrip(),
                flush=True,
            )
            return no_lag(done.stdout)
        pipeline.check()


def _without_retries(described: str) -> str:
    """Leave out the partitions of callbacks that wait, of which there are many, while none waits."""
    lines = described.splitlines()
    retries = [
        line for line in lines if "_callback_retry_" in line and line.split()[LAG_COLUMN] == "0"
    ]
    kept = [line for line in lines if line not in retries]
    return "\n".join(
        [*kept, f"({len(retries)} partitions of callbacks that wait: LAG 0)"] if retries else kept
    )


def no_lag(described: str) -> bool:
    """Tell whether both groups were described, every partition of theirs with LAG 0."""
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
    whole = (file.stat().st_size, _sha256(file)) == (stem["bytes"], stem["sha256"])
    fault = "" if whole else "  NOT the bytes that the callback names"
    print(
        f"  {name:12}  s3://{BUCKET}/{stem['key']}  {stem['bytes']:,} bytes  {_short(file)}{fault}"
    )
    return whole


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _short(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _in_one_line(receipt: Receipt) -> str:
    model = f" {receipt.model}" if receipt.model else ""
    residual = (
        "not measured (lossy)" if receipt.residual_db is None else f"{receipt.residual_db:.0f} dB"
    )
    return (
        f"engine {receipt.engine}{model} on {receipt.device}, {receipt.source.seconds:.1f} s of audio in "
        f"{receipt.seconds.separate:.1f} s ({receipt.realtime_factor:.1f} times real time), residual {residual}"
    )
