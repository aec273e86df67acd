"""Songs that took over their processes, in the real processor: they cost themselves alone."""

from __future__ import annotations

import sys

import pytest

from tests.pipeline.services import REPOSITORY, until

pytest_plugins = ["tests.pipeline.fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines songs")

WRAPPER = (sys.executable, str(REPOSITORY / "tests" / "hostile" / "possessed_processor.py"))

#: Says that all went well, of a source with other bytes; `shape` makes the stems.
_FORGED = """#!python
import json
{stems}
source_path = source
source = dict(sha256="0" * 64, seconds=1.0, frames=44100, sample_rate=44100, channels=2, codec="x")
peak = dict(vocals=0.5, instrumental=0.5)
receipt = dict(
    source=source, engine="dsp", model=None, model_sha256=None, device="cpu", residual_db=-200.0,
    gain=1.0, peak=peak, seconds=dict(download=0.0, separate=1.0), realtime_factor=1.0,
)
pipe.send(json.dumps(dict(kind="receipt", receipt=receipt)).encode())
"""
_FILES = "[(folder / f'{name}.wav').write_bytes(b'x') for name in ('vocals', 'instrumental')]"
_FOLDERS = "[(folder / f'{name}.wav').mkdir() for name in ('vocals', 'instrumental')]"
_TRUE_HASH = "__import__('hashlib').sha256(source_path.read_bytes()).hexdigest()"
_DEEP = """#!python
import os
os.chdir(folder)
for _ in range(3000):
    os.mkdir("a" * 200)
    os.chdir("a" * 200)
os.mkdir("closed", 0)
os.chdir(folder)
os.mkdir("0123456789abcdef.lock")
os.mkdir("vocals.wav", 0)
for number in range(1000):
    open(f"{number}\\udcff", "w").close()
os._exit(7)
"""
SONGS = {
    "/forged": _FORGED.format(stems=_FILES),
    "/folders": _FORGED.replace('"0" * 64', _TRUE_HASH).format(stems=_FOLDERS),
    "/none": _FORGED.format(stems=""),
    "/deep": _DEEP,
}


def test_each_costs_itself_alone_and_leaves_nothing(pipeline, world):
    world.files |= {path: song.encode() for path, song in SONGS.items()}
    processor = pipeline.start("processor", wrapper=WRAPPER)
    processor.until_logged("Processor started")
    pipeline.started("uploader")

    hostile = [pipeline.order(world.url(path), partition=0) for path in SONGS]
    good = pipeline.order(world.url("/song.wav"), partition=0)

    assert pipeline.outcome(good)["status"] == "succeeded"
    for task_uuid in hostile:
        outcome = pipeline.outcome(task_uuid)
        assert outcome["error"]["code"] == "engine_crashed"
        assert "0" * 64 not in str(outcome)
    work = pipeline.folder / "data" / "work"
    until(lambda: not list(work.iterdir()), "an empty WORK_DIR")
    processor.end()
    # It starts again, whatever they left.
    pipeline.started("processor")
