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
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/

import boto3
import requests
from kafka import KafkaConsumer

from benchmarks.contestants import cores
from common.separation import stems
from common.separation.dsp import DspEngine
from common.separation.progress import Report


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
    s3 = boto3.client("s3", endpoint_url=given["endpoint"], region_name="us-east-1")
    engine = DspEngine(cores())
    report = Report(seconds=lambda _seconds: None, percent=lambda _percent: None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for record in consumer:
            task = json.loads(record.value)
            if not task:
                print("started", flush=True)
                continue
            source = folder / "source"
            source.write_bytes(requests.get(task["audio_url"], timeout=60).content)
            receipt = stems.separate(engine, source, folder, "wav", 600.0, report)
            keys = {}
            for stem in ("vocals", "instrumental"):
                keys[stem] = f"{task['task_uuid']}/{stem}.wav"
                s3.upload_file(str(folder / f"{stem}.wav"), given["bucket"], keys[stem])
            body = {"data": {"task_uuid": task["task_uuid"], "stems": keys}}
            body["data"]["receipt"] = receipt.model_dump(mode="json")
            requests.post(task["callback_url"], json=body, timeout=60)
            consumer.commit()


if __name__ == "__main__":
    main()
