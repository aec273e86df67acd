"""A plain worker, as many services have one: the yardstick of throughput.py. It promises nothing.

    python benchmarks/plain_worker.py SETTINGS

It polls, downloads, separates in its own process, uploads, posts the callback and commits, one step
after the other, with no check, no retry, no limit, no sandbox and no progress. SETTINGS is a JSON
object: kafka, topic, group, bucket and the endpoint of S3.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/

import boto3
import requests
from kafka import KafkaConsumer

from benchmarks.contestants import cores
from common.separation import stems
from common.separation.dsp import DspEngine
from common.separation.progress import Report


class PlainJob:
    """What a plain worker does with a task, in *folder*; *bucket* and *endpoint* are of S3."""

    def __init__(self, folder: Path, bucket: str, endpoint: str) -> None:
        self._folder, self._bucket = folder, bucket
        self._s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self._engine = DspEngine(cores())
        self._report = Report(seconds=lambda _seconds: None, percent=lambda _percent: None)

    def do(self, task: Mapping[str, Any]) -> None:
        """Download, separate, upload and call back."""
        source = self._folder / "source"
        source.write_bytes(requests.get(task["audio_url"], timeout=60).content)
        receipt = stems.separate(self._engine, source, self._folder, "wav", 600.0, self._report)
        keys = {}
        for stem in ("vocals", "instrumental"):
            keys[stem] = f"{task['task_uuid']}/{stem}.wav"
            self._s3.upload_file(str(self._folder / f"{stem}.wav"), self._bucket, keys[stem])
        body = {"data": {"task_uuid": task["task_uuid"], "stems": keys}}
        body["data"]["receipt"] = receipt.model_dump(mode="json")
        requests.post(task["callback_url"], json=body, timeout=60)


def main() -> None:
    """Work until killed."""
    given = json.loads(sys.argv[1])
    consumer = KafkaConsumer(
        given["topic"],
        bootstrap_servers=given["kafka"],
        group_id=given["group"],
        max_poll_records=1,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    with tempfile.TemporaryDirectory() as name:
        job = PlainJob(Path(name), given["bucket"], given["endpoint"])
        for record in consumer:
            task = json.loads(record.value)
            if not task:
                print("started", flush=True)
                continue
            job.do(task)
            consumer.commit()


if __name__ == "__main__":
    main()
