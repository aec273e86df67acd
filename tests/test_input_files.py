"""file:/// sources: nothing outside INPUT_DIR is opened, whoever changes it at that moment."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import Counter

import pytest

from common.errors import DownloadFailed, UrlForbidden
from common.input_files import open_input


@pytest.fixture
def folder(tmp_path):
    """Return an INPUT_DIR with a song, beside a secret of the same name."""
    for place in (tmp_path / "input" / "real", tmp_path / "outside"):
        place.mkdir(parents=True)
        (place / "song.wav").write_text(place.name)
    return tmp_path / "input"


def read(folder, name):
    with open_input((folder / name).as_uri(), folder) as file:
        return file.read()


@pytest.mark.parametrize("target", ["real", "../input/real", "{folder}/real", "again"])
def test_links_that_stay_inside_are_followed(folder, target):
    (folder / "again").symlink_to("real")
    (folder / "link").symlink_to(target.format(folder=folder))

    assert read(folder, "link/song.wav") == b"real"


@pytest.mark.parametrize("target", ["../outside", "{folder}/../outside", "real/../../outside"])
def test_links_that_lead_outside_are_refused(folder, target):
    (folder / "link").symlink_to(target.format(folder=folder))

    with pytest.raises(UrlForbidden):
        read(folder, "link/song.wav")


def test_links_in_a_circle_are_refused(folder):
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")

    with pytest.raises((UrlForbidden, DownloadFailed)):
        read(folder, "a/song.wav")


@pytest.mark.parametrize("name", ["", "real"])
def test_a_folder_is_not_a_source(folder, name):
    with pytest.raises(UrlForbidden):
        read(folder, name)


@pytest.mark.skipif(sys.platform != "linux", reason="exchanges two names at once")
@pytest.mark.parametrize("swapped", ["real", "real/song.wav"])
def test_a_name_that_is_swapped_for_a_link_while_it_is_opened_leads_nowhere(folder, swapped):
    (folder / "link").symlink_to(folder.parent / "outside" / swapped.removeprefix("real"))
    exchange = ctypes.CDLL(None).renameat2
    here, names, at_once = -100, [os.fsencode(folder / name) for name in (swapped, "link")], 2
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            assert exchange(here, names[0], here, names[1], at_once) == 0

    swapping = threading.Thread(target=swap, daemon=True)
    swapping.start()
    found: Counter[bytes | str] = Counter()
    try:
        for _ in range(10_000):
            try:
                found[read(folder, "real/song.wav")] += 1
            except (UrlForbidden, DownloadFailed):
                found["refused"] += 1
    finally:
        stop.set()
        swapping.join()

    assert found.keys() == {b"real", "refused"}
