"""Songs of any name: their folders, what is written in them, and what is shown."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from common.separation.child_process import ROOT
from tests import sounds
from tools.submit.sources import find

NOT_UTF8 = os.fsdecode(b"caf\xe9.wav")
POSIX = pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")


def separate(folder, *arguments, **variables):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "separate.py", *arguments],
        cwd=folder,
        env={**os.environ, "UVR_MODEL_DIR": str(folder), **variables},
        capture_output=True,
        timeout=200,
    )


def results(done):
    return [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]


@pytest.fixture
def song(tmp_path):
    return sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)


@POSIX
def test_songs_of_any_name_are_separated_into_folders_of_their_own_below_the_output(tmp_path, song):
    file_names = [
        *(NOT_UTF8, "new\nline.wav", "tab\tbell\x07.wav", "\x1b[31mred.wav", "x" * 251 + ".wav"),
        *("..wav", "...wav", ".wav", "ünï 🎵.wav", "a.wav", "A.wav"),
        *(unicodedata.normalize("NFC", "é.wav"), unicodedata.normalize("NFD", "é.wav")),
    ]
    songs = [tmp_path / "songs" / name for name in file_names]
    songs[0].parent.mkdir()
    for path in songs:
        shutil.copyfile(song, path)
    output = tmp_path / os.fsdecode(b"st\xe4mme \n")

    done = separate(
        tmp_path, "missing.wav", *songs, "--json", "--output", output, PYTHONIOENCODING="ascii"
    )

    found = results(done)
    assert [one["status"] for one in found] == ["failed"] + ["succeeded"] * len(songs)
    assert (done.returncode, done.stderr) == (1, b"")
    folders = [Path(one["stems"]["vocals"]["path"]).parent for one in found[1:]]
    assert len({unicodedata.normalize("NFC", str(one)).casefold() for one in folders}) == len(songs)
    for folder in folders:
        assert len(folder.parts) == 1
        assert folder.name.isprintable()
        assert sorted(path.name for path in (output / folder).iterdir()) == [
            "instrumental.wav",
            "separation.json",
            "vocals.wav",
        ]
    assert {path.name for path in output.iterdir()} == {folder.name for folder in folders}
    assert [path.read_bytes() for path in songs] == [song.read_bytes()] * len(songs)


@POSIX
def test_names_reach_the_terminal_escaped_and_in_its_encoding(tmp_path, song):
    hostile = tmp_path / os.fsdecode(b"\x1b[2Jcaf\xe9 \xc3\xbc.wav")
    shutil.copyfile(song, hostile)

    done = separate(
        tmp_path,
        hostile.name,
        tmp_path / os.fsdecode(b"gone\xe9\x1b[2J"),
        "--report",
        PYTHONIOENCODING="ascii",
        LC_ALL="POSIX",
    )

    assert done.returncode == 1
    assert done.stdout.startswith(rb"\x1b[2Jcaf\xe9 \xfc.wav: stems/")
    assert b"\x1b" not in done.stdout + done.stderr
    assert rb"gone\xe9\x1b[2J: download_failed: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_source_is_never_replaced_by_stems(tmp_path, song):
    folder = tmp_path / "out" / "vocals"
    folder.mkdir(parents=True)
    source = folder / "vocals.wav"
    shutil.copyfile(song, source)
    other = tmp_path / "vocals.flac"
    shutil.copyfile(song, other)
    spool = folder / "vocals.spool"
    shutil.copyfile(song, spool)

    done = separate(tmp_path, other, source, spool, song, "--json", "--output", tmp_path / "out")

    found = results(done)
    assert [one["status"] for one in found] == ["failed", "succeeded", "succeeded", "succeeded"]
    assert found[0]["error"]["code"] == "invalid_task"
    assert "would replace the source" in found[0]["error"]["message"]
    assert "--output" in found[0]["error"]["message"]
    assert source.read_bytes() == spool.read_bytes() == song.read_bytes()


@POSIX
def test_songs_that_cannot_be_opened_do_not_stop_the_next(tmp_path, song):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "stems").mkdir()
    (tmp_path / "stems" / "taken").touch()
    shutil.copyfile(song, tmp_path / "taken.wav")
    bad = ["loop.wav", "folder.wav", "n" * 300, "song.wav/song.wav", "taken.wav"]

    done = separate(tmp_path, *bad, "song.wav", "--json")

    found = results(done)
    assert [one["status"] for one in found] == ["failed"] * len(bad) + ["succeeded"]
    assert (done.returncode, done.stderr) == (1, b"")


@POSIX
def test_submitted_sources_of_any_name_get_names_that_are_folders_everywhere(tmp_path):
    accented = [unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD")]
    for name in [NOT_UTF8, "..wav", "...wav", "a\nb.wav", "𠀋" * 60 + ".wav", *accented]:
        (tmp_path / name).touch()

    names = [source.name for source in find([str(tmp_path)])]

    assert len(names) == 7
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 7
    for name in names:
        assert name.isprintable()
        assert len(os.fsencode(name)) <= 255
        (tmp_path / "stems" / name).mkdir(parents=True)
