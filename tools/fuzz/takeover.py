"""A separator whose songs can take over their processes, and what must stay unharmed beside it."""

from __future__ import annotations

import atexit
import functools
import io
import os
import subprocess
import sys
import wave

import psutil

from common.errors import TASK_ERRORS, TaskError
from tools.fuzz import Found, separation

#: A song's process may go on for no longer.
MAX_SONG_SECONDS = 3.0


class Takeover:
    """The separator, a process of the same user and files beside the song's folder."""

    def __init__(self) -> None:
        self.root = separation.temporary_folder()
        self.song_folder = self.root / "work" / "attacker" / "run"
        other = self.root / "work" / "other" / "run"
        for made in (self.song_folder, other):
            made.mkdir(parents=True)
        self.canary_file = other / "source"
        self.canary_file.write_bytes(b"of another")
        self.canary = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        atexit.register(self.canary.kill)
        self._separator = separation.started(
            self.root, self.root / "work", MAX_SONG_SECONDS, module="tools.fuzz.possessed"
        )
        self._state = self._look()

    def separate(self, song: bytes) -> str:
        """Separate *song*; return the code of its error, empty on success.

        Raises:
            Found: it ended in no known way, or harmed something.
        """
        source, percents = self.song_folder / "source", [-1]
        source.write_bytes(song)

        def progress(percent: int) -> None:
            if not percents[-1] < percent <= 100:
                raise Found(f"percent {percent} after {percents[-1]}", song, ".py")
            percents.append(percent)

        code = ""
        try:
            separation.separate(self._separator, source, self.song_folder, progress)
        except TaskError as error:
            code = error.code
        for left in self.song_folder.iterdir():
            left.unlink()
        if code and code not in TASK_ERRORS:
            raise Found(f"the code {code!r}", song, ".py")
        if (state := self._look()) != self._state:
            raise Found(f"{state} instead of {self._state}", song, ".py")
        return code

    def check_good_song(self, after: bytes) -> None:
        """Separate a good song *after* another one.

        Raises:
            Found: it fails.
        """
        if code := self.separate(_good_song()):
            raise Found(f"a good song failed as {code}", after, ".py")

    def _look(self) -> object:
        """Return what no song may change."""
        canary, parent = psutil.Process(self.canary.pid), psutil.Process()
        status = self.canary_file.stat()
        children = psutil.Process(self._separator.pid).children() if self._separator.pid else []
        return (
            *(
                (
                    process.is_running() and process.status() != psutil.STATUS_ZOMBIE,
                    process.nice(),
                    tuple(process.cpu_affinity()),
                    process.rlimit(psutil.RLIMIT_CPU),
                )
                for process in (canary, parent)
            ),
            *(status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns),
            self._separator.pid,
            [child.pid for child in children],
            sorted(os.listdir(self.root / "work")),  # noqa: PTH208 -- names
        )


@functools.cache
def _good_song() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(range(250)) * 40)
    return file.getvalue()


@functools.cache
def takeover() -> Takeover:
    """Return the one of this process."""
    return Takeover()
