"""Folders of runs, which end with their process, and stems in both kinds of handoff."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.deadline import Deadline
from common.disk import full_disk_named
from common.errors import Cancelled, DiskFull, HandoffMissing, UploadFailed
from common.handoff import FolderHandoff, S3Handoff, handoff_dependency, open_handoff
from common.messages import Stem, Stems
from common.outages import Backoff
from common.run_folders import RunFolders, new_run, task_folder
from common.s3 import S3
from tests import descriptors, servers
from tests.fixtures_edges import S3_SERVERS
from tests.pipeline.services import until

NO_WAIT = Backoff(first_seconds=0, max_seconds=0)
TASK = "task-1"
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")

HOLDER = """
import sys
from pathlib import Path
from common.run_folders import RunFolders
with RunFolders(Path(sys.argv[1])).open(sys.argv[2]) as run:
    (run.path / "source").write_bytes(b"audio")
    print(run.path, flush=True)
    sys.stdin.read()
"""


def ample():
    return Deadline(60)


# Folders of runs


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds a run of TASK; yield it and the run's folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), TASK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_run_has_a_folder_of_its_own_that_ends_with_it(tmp_path):
    root = tmp_path / "work"
    with RunFolders(root).open(TASK) as run:
        assert run.path == root / TASK / run.name
        assert list(run.path.iterdir()) == []
        (run.path / "source").write_bytes(b"audio")
        (run.path / "folder").mkdir()

    assert list(root.iterdir()) == []


def test_a_run_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), RunFolders(tmp_path).open(TASK):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_runs_of_one_task_do_not_meet(tmp_path):
    folders = RunFolders(tmp_path)
    with folders.open(TASK) as first:
        (first.path / "source").write_bytes(b"first")
        with folders.open(TASK) as second:
            assert list(second.path.iterdir()) == []
        assert (first.path / "source").read_bytes() == b"first"


def test_a_sweep_leaves_the_living_alone_and_removes_the_dead(tmp_path, holder):
    process, folder = holder
    folders = RunFolders(tmp_path)

    assert folders.sweep() == 0
    assert (folder / "source").exists()
    process.kill()
    process.wait()
    assert folders.sweep() == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_our_own_runs_alone(tmp_path):
    folders = RunFolders(tmp_path)
    with folders.open(TASK) as run:
        assert folders.sweep() == 0
        assert run.path.exists()


def test_sweeps_and_new_runs_at_once_cost_no_run_its_folder(tmp_path):
    folders = RunFolders(tmp_path)
    over = threading.Event()
    lost: list[Path] = []

    def sweep():
        while not over.is_set():
            folders.sweep()

    def work():
        for _ in range(100):
            with folders.open(TASK) as run:
                (run.path / "source").write_bytes(b"audio")
                if not (run.path / "source").exists():
                    lost.append(run.path)

    sweeper, *workers = (threading.Thread(target=target) for target in (sweep, work, work, work))
    for thread in (sweeper, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    sweeper.join()

    assert lost == []
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_touches_nothing_that_is_not_ours(tmp_path):
    (tmp_path / "project" / "poetry").mkdir(parents=True)
    (tmp_path / "project" / "poetry.lock").write_text("")
    (tmp_path / "project" / "poetry" / "file").write_text("")

    assert RunFolders(tmp_path).sweep() == 0
    assert (tmp_path / "project" / "poetry" / "file").exists()
    assert (tmp_path / "project" / "poetry.lock").exists()


def test_a_sweep_of_a_folder_that_is_not_there_makes_none(tmp_path):
    assert RunFolders(tmp_path / "none").sweep() == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("task_uuid", ["CON", "nul", "Aux", "com1", "LPT9"])
def test_a_task_named_like_a_windows_device_gets_a_folder(task_uuid):
    assert task_folder(task_uuid) == f"{task_uuid}_"
    assert task_folder(f"{task_uuid}x") == f"{task_uuid}x"


def test_no_two_runs_have_one_name():
    assert len({new_run() for _ in range(1000)}) == 1000


# The handoff


@pytest.fixture(params=["folder", *S3_SERVERS])
def handoff(request, tmp_path):
    """Return a handoff of each kind."""
    if request.param == "folder":
        return FolderHandoff(tmp_path / "handoff")
    request.getfixturevalue("credentials")
    server = request.getfixturevalue(S3_SERVERS[request.param])
    return S3Handoff(
        S3(endpoint_url=server.endpoint_url, addressing_style="path"),
        server.make_bucket(),
        "hand/off",
        backoff=NO_WAIT,
    )


@pytest.fixture
def files(tmp_path):
    """Return a function that makes the files of a run."""

    def make():
        made = {name: tmp_path / f"{name}.flac" for name in ("vocals", "instrumental")}
        for name, path in made.items():
            path.write_bytes(servers.pattern(100_000) + name.encode())
        return made

    return make


def fetched(handoff, stems, folder):
    return {name: path.read_bytes() for name, path in handoff.fetch(stems, folder, ample()).items()}


def test_what_is_put_is_what_is_fetched(handoff, files, tmp_path):
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())

    assert stems.vocals.path == "task-1/run-1/vocals.flac"
    assert stems.vocals.bytes == 100_006
    assert fetched(handoff, stems, tmp_path) == {
        "vocals": servers.pattern(100_000) + b"vocals",
        "instrumental": servers.pattern(100_000) + b"instrumental",
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("left", "stored"), [(0o000, 0o600), (0o6755, 0o755)])
def test_a_stem_is_ours_to_read_whatever_mode_its_song_gave_it(tmp_path, files, left, stored):
    made = files()
    for path in made.values():
        path.chmod(left)

    stems = FolderHandoff(tmp_path / "handoff").put(TASK, "run-1", made, "flac", ample())

    paths = [tmp_path / "handoff" / stem.path for stem in stems.by_name().values()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [stored] * 2


def test_removing_a_run_leaves_other_runs_of_the_task(handoff, files, tmp_path):
    first = handoff.put(TASK, "run-1", files(), "flac", ample())
    second = handoff.put(TASK, "run-2", files(), "flac", ample())
    handoff.remove(first)
    handoff.remove(first)

    with pytest.raises(HandoffMissing):
        handoff.fetch(first, tmp_path, ample())
    assert fetched(handoff, second, tmp_path)


def test_a_sweep_goes_by_age(handoff, files, tmp_path):
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())

    assert handoff.sweep(3600) == 0
    assert fetched(handoff, stems, tmp_path)
    assert handoff.sweep(-3600) == 1
    with pytest.raises(HandoffMissing):
        handoff.fetch(stems, tmp_path, ample())


@pytest.mark.parametrize("change", [{"bytes": 100_007}, {"sha256": "0" * 64}])
def test_other_bytes_than_the_result_names_are_missing(handoff, files, tmp_path, change):
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())
    changed = stems.model_copy(update={"vocals": stems.vocals.model_copy(update=change)})

    with pytest.raises(HandoffMissing, match="differs"):
        handoff.fetch(changed, tmp_path, ample())


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../canary/vocals.flac", "task-1/../../vocals.flac",
     "task-1/run-1/../../../vocals.flac", "task-1//vocals.flac", "task-1/run-1/passwd",
     "task-1\\run-1\\vocals.flac", "C:/run/vocals.flac",
     "task-1/run-1/vocals.flac/", "", ".", "task-1/run-1/extra/vocals.flac",
     "~/run-1/vocals.flac", "./run-1/vocals.flac"],
)  # fmt: skip
def test_a_path_that_the_handoff_does_not_make_is_neither_read_nor_removed(
    handoff, files, tmp_path, path
):
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())
    hostile = Stem(path=path, bytes=1, sha256="0" * 64, format="flac")

    with pytest.raises(HandoffMissing):
        handoff.fetch(Stems(vocals=hostile, instrumental=hostile), tmp_path, ample())
    handoff.remove(Stems(vocals=hostile, instrumental=hostile))
    assert fetched(handoff, stems, tmp_path)


def test_a_cancelled_turn_hands_nothing_over(handoff, files):
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(Cancelled):
        handoff.put(TASK, "run-1", files(), "flac", Deadline(60, cancelled=cancelled))


def test_no_time_left_is_an_upload_that_failed(handoff, files):
    with pytest.raises(UploadFailed):
        handoff.put(TASK, "run-1", files(), "flac", Deadline(0))


@LINKS
def test_a_link_that_leads_out_of_the_handoff_is_not_followed(files, tmp_path):
    handoff = FolderHandoff(tmp_path / "handoff")
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())
    inside, outside = (
        tmp_path / "handoff" / stems.by_name()["vocals"].path,
        tmp_path / "outside.flac",
    )
    inside.replace(outside)
    inside.symlink_to(outside)

    with pytest.raises(HandoffMissing, match="leads out"):
        handoff.fetch(stems, tmp_path, ample())


def test_nothing_half_written_has_a_final_name_and_a_sweep_takes_the_rest(tmp_path):
    run = tmp_path / "handoff" / TASK / "run-1"
    run.mkdir(parents=True)
    (run / "vocals.flac.part").write_bytes(b"half")

    assert FolderHandoff(tmp_path / "handoff").sweep(-3600) == 1
    assert list((tmp_path / "handoff").iterdir()) == []


def test_a_sweep_of_the_handoff_touches_nothing_that_is_not_ours(tmp_path):
    (tmp_path / "music" / "album").mkdir(parents=True)
    (tmp_path / "music" / "album" / "song.flac").write_bytes(b"mine")

    assert FolderHandoff(tmp_path).sweep(-3600) == 0
    assert (tmp_path / "music" / "album" / "song.flac").exists()


def test_stems_come_from_another_disk_too(files, tmp_path, another_disk):
    handoff = FolderHandoff(another_disk / "handoff")
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())

    assert fetched(handoff, stems, tmp_path)["vocals"].endswith(b"vocals")


@pytest.fixture
def another_disk(tmp_path):
    """Return a folder on another file system than tmp_path."""
    import shutil
    import tempfile

    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:  # noqa: PTH112, PTH116
        pytest.skip("needs a second file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("credentials")
def test_s3_that_is_away_fails_the_handoff(files):
    unreachable = S3(
        endpoint_url=f"http://127.0.0.1:{servers.free_port()}", addressing_style="path"
    )
    handoff = S3Handoff(
        unreachable, "bucket", backoff=Backoff(first_seconds=3600, max_seconds=3600)
    )

    with pytest.raises(UploadFailed, match="was unavailable"):
        handoff.put(TASK, "run-1", files(), "flac", ample())


@pytest.mark.usefixtures("credentials")
def test_removing_never_fails_a_task_that_is_done():
    unreachable = S3(
        endpoint_url=f"http://127.0.0.1:{servers.free_port()}", addressing_style="path"
    )
    stem = Stem(path="task-1/run-1/vocals.flac", bytes=1, sha256="0" * 64, format="flac")

    S3Handoff(unreachable, "bucket").remove(Stems(vocals=stem, instrumental=stem))


def test_the_setting_names_a_folder_or_a_bucket(tmp_path):
    store = S3(endpoint_url="http://127.0.0.1:1", addressing_style="path")

    assert isinstance(open_handoff(str(tmp_path)), FolderHandoff)
    assert isinstance(open_handoff("s3://bucket/prefix", store), S3Handoff)
    for url in ("s3://", "s3:///prefix"):
        with pytest.raises(ValueError, match="s3://bucket/prefix"):
            open_handoff(url, store)
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        open_handoff("s3://bucket")


# A folder that does not answer, as a share that is away


@pytest.mark.parametrize("doing", ["put", "fetch"])
def test_a_folder_that_does_not_answer_is_waited_for(files, tmp_path, doing):
    dependency = handoff_dependency("handoff")
    handoff = FolderHandoff(tmp_path / "handoff", dependency, backoff=NO_WAIT)
    made, stems = files(), []
    if doing == "fetch":
        stems.append(handoff.put(TASK, "run-1", made, "flac", ample()))

    def work():
        if doing == "put":
            stems.append(handoff.put(TASK, "run-1", made, "flac", ample()))
        else:
            handoff.fetch(stems[0], tmp_path, ample())
        done.set()

    done = threading.Event()
    working = threading.Thread(target=work)
    with descriptors.none_left():
        working.start()
        reason = until(lambda: dependency.unavailable_reason, "the outage")
    working.join()

    assert "Too many open files" in reason
    assert done.is_set()
    assert fetched(handoff, stems[0], tmp_path)["vocals"].endswith(b"vocals")
    assert dependency.unavailable_reason is None


def test_a_folder_that_does_not_answer_in_time_has_not_lost_the_stems(files, tmp_path):
    forever = Backoff(first_seconds=3600, max_seconds=3600)
    handoff = FolderHandoff(tmp_path / "handoff", backoff=forever)
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())

    with (
        descriptors.none_left(),
        pytest.raises(UploadFailed, match="unavailable until the time limit of 60 s: Too many"),
    ):
        handoff.fetch(stems, tmp_path, ample())


@LINKS
@pytest.mark.parametrize("there", ["nothing", "a file above it", "a folder", "a circle"])
def test_an_answer_other_than_the_stem_is_not_waited_for(files, tmp_path, there):
    handoff = FolderHandoff(tmp_path / "handoff", backoff=NO_WAIT)
    stems = handoff.put(TASK, "run-1", files(), "flac", ample())
    path = tmp_path / "handoff" / stems.by_name()["vocals"].path
    path.unlink()
    if there == "a file above it":
        (path.parent / "instrumental.flac").unlink()
        path.parent.rmdir()
        path.parent.write_bytes(b"")
    elif there == "a folder":
        path.mkdir()
        size_bytes = path.stat().st_size
        folder = stems.by_name()["vocals"].model_copy(update={"bytes": size_bytes})
        stems = stems.model_copy(update={"vocals": folder})
    elif there == "a circle":
        path.symlink_to(path.name)

    with pytest.raises(HandoffMissing, match="gone"):
        handoff.fetch(stems, tmp_path, ample())


# A full disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_its_own_code(code):
    with pytest.raises(DiskFull) as caught, full_disk_named():
        raise OSError(code, os.strerror(code))
    assert caught.value.retryable


def test_other_faults_of_a_disk_stay_what_they_are():
    with pytest.raises(PermissionError), full_disk_named():
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.timeout(45, func_only=True)  # the library waits for 30 s, twice
@pytest.mark.usefixtures("credentials")  # its credentials
def test_a_cancelled_turn_does_not_wait_for_an_s3_that_is_silent(files):
    cancelled = threading.Event()
    with servers.stalled_server(cancelled.set) as port:
        handoff = S3Handoff(S3(endpoint_url=f"http://127.0.0.1:{port}"), "bucket")

        with pytest.raises(Cancelled):
            handoff.put(TASK, "run-1", files(), "flac", Deadline(60, cancelled=cancelled))
