"""Folders that a song may leave behind stop neither their removal nor a sweep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from common.deadline import Deadline
from common.errors import EngineCrashed
from common.files import remove_tree
from common.handoff import FolderHandoff
from common.run_folders import RunFolders
from tests.hostile.test_escapes import USERS, _may_unshare

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes and longer paths")

_LEAVE = """
import os, sys
os.chdir(sys.argv[1])
os.mkdir("closed", 0)
os.mkdir("writable only", 0o200)
for _ in range(3000):
    os.mkdir("a" * 200)
    os.chdir("a" * 200)
os.mkdir("closed", 0)
os.mkdir("beside")
open("file", "w").close()
"""


@pytest.mark.parametrize("user", USERS)
def test_a_tree_of_any_depth_and_mode_is_removed(tmp_path, user):
    if USERS[user] and not _may_unshare():
        pytest.skip("this system allows no user namespace")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(tmp_path / "outside")
    removal = (
        "from pathlib import Path\nfrom common.files import remove_tree\n"
        f"{_LEAVE}\nos.chdir('/')\nremove_tree(Path(sys.argv[1]))"
    )

    done = subprocess.run(
        [*USERS[user], sys.executable, "-c", removal, str(tree)], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "kept").exists()


def test_a_link_is_removed_and_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "outside")

    remove_tree(tmp_path / "link")

    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "kept").exists()


@pytest.mark.parametrize("shape", ["folder", "link", "pipe", "file"])
def test_what_is_called_like_a_lock_and_is_none_stops_no_sweep(tmp_path, shape):
    path = tmp_path / "x" / "0123456789abcdef.lock"
    path.parent.mkdir()
    makes = {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("/nowhere"),
        "pipe": lambda: os.mkfifo(path),
        "file": lambda: path.write_text("not ours"),
    }
    makes[shape]()
    dead = tmp_path / "task" / "fedcba9876543210"
    dead.mkdir(parents=True)
    dead.with_name(f"{dead.name}.lock").touch()

    RunFolders(tmp_path).sweep()

    assert not dead.exists()


@pytest.mark.parametrize("shape", ["folder", "closed folder", "pipe", "link"])
def test_what_is_called_like_a_stem_and_is_none_stops_no_sweep(tmp_path, shape):
    run = tmp_path / "a" / "run"
    run.mkdir(parents=True)
    path = run / "vocals.wav"
    makes = {
        "folder": path.mkdir,
        "closed folder": lambda: path.mkdir(0),
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/etc/passwd"),
    }
    makes[shape]()
    old = tmp_path / "b" / "run"
    old.mkdir(parents=True)
    (old / "vocals.wav").touch()
    for folder in (old / "vocals.wav", old, run):
        os.utime(folder, (0, 0))

    assert FolderHandoff(tmp_path).sweep(60) == 1
    assert not old.exists()


@pytest.mark.parametrize("shape", ["folder", "pipe", "link"])
def test_a_stem_that_is_no_file_is_not_handed_over(tmp_path, shape):
    source = tmp_path / "run" / "vocals.wav"
    source.parent.mkdir()
    (tmp_path / "run" / "instrumental.wav").touch()
    makes = {
        "folder": source.mkdir,
        "pipe": lambda: os.mkfifo(source),
        "link": lambda: source.symlink_to("/etc/passwd"),
    }
    makes[shape]()
    files = {"vocals": source, "instrumental": tmp_path / "run" / "instrumental.wav"}

    with pytest.raises(EngineCrashed, match="vocals"):
        FolderHandoff(tmp_path / "handoff").put("a", "b", files, "wav", Deadline(60))  # type: ignore[arg-type]

    assert not list((tmp_path / "handoff").rglob("*.wav"))
