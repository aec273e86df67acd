"""Other users of the machine read nothing that is secret, or that strangers sent."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from common.deadline import Deadline
from common.handoff import FolderHandoff
from common.messages import STEMS, Origin
from common.run_folders import RunFolders
from tests.pipeline.services import until
from tools.background.processes import Services
from tools.submit.submission_log import Submission, SubmissionLog

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ignores modes")


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder):
    """Return the files below *folder* that everybody may read who may enter it."""
    found = []
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IXOTH:
            found += open_to_others(path)
        elif stat.S_ISREG(mode) and mode & stat.S_IROTH:
            found.append(str(path))
    return found


def test_the_services_keep_songs_stems_and_logs_to_themselves(pipeline, world):
    pipeline.started("processor")
    gate = world.gated("/later.wav")
    pipeline.order(world.url("/song.wav"), task_uuid="first")
    handoff = pipeline.folder / "data" / "handoff"
    until(lambda: list(handoff.glob("*/*/instrumental.wav")), "the handoff")
    pipeline.order(world.url("/later.wav"))
    world.until_asked("/later.wav")
    work = pipeline.folder / "data" / "work"
    runs = until(lambda: list(work.glob("*/*.lock")), "a run")

    found = open_to_others(pipeline.folder)
    gate.set()

    assert runs
    assert {handoff.stat().st_mode & 0o777, work.stat().st_mode & 0o777} == {0o700}
    assert (pipeline.folder / "logs" / "processor.log").exists()
    ours = [pipeline.folder / name for name in ("logs", "data/work", "data/handoff")]
    assert [file for file in found if any(map(Path(file).is_relative_to, ours))] == []


def test_a_folder_that_an_operator_opened_to_a_group_stays_open_to_it(tmp_path):
    root, source = tmp_path / "handoff", tmp_path / "source"
    for folder in (root, source):
        folder.mkdir()
    root.chmod(0o2770)
    files = {name: source / f"{name}.wav" for name in STEMS}
    for file in files.values():
        file.write_bytes(b"music")
    os.umask(0o002)

    stems = FolderHandoff(root).put("task-1", "run", files, "wav", Deadline(60))

    assert stat.S_IMODE(root.stat().st_mode) == 0o2770
    run = (root / stems.by_name()["vocals"].path).parent
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (run.parent, run)] == [0o2775] * 2
    work = tmp_path / "work"
    work.mkdir(mode=0o750)
    with RunFolders(work).open("task-1"):
        assert stat.S_IMODE(work.stat().st_mode) == 0o750


def test_a_log_of_submissions_is_private(tmp_path):
    log = SubmissionLog.new(tmp_path / "submitted")
    origin = Origin(topic="uvr_tasks", partition=0, offset=1)
    log.append(Submission(name="song", task_uuid="task-1", origin=origin))

    assert log.read()
    assert open_to_others(tmp_path) == []


def test_the_data_of_a_node_with_users_is_private(locked_kafka):
    public = open_to_others(locked_kafka.folder)

    assert list((locked_kafka.folder / "data").glob("__cluster_metadata-0/*.log"))
    assert [file for file in public if file.endswith((".log", ".snapshot", ".checkpoint"))] == []
    assert [file for file in public if "/data/" in file or "/logs/" in file] == []


def test_a_process_in_the_background_logs_for_its_owner_alone(tmp_path):
    services = Services(tmp_path)
    services.start("callbacks", [sys.executable, "-c", "print('https://signed.example')"], {})
    services.until_logged("callbacks", "signed")
    services.stop()

    assert [file for file in open_to_others(tmp_path) if file.endswith(".out")] == []
