"""Containers of the services' image without containers: a folder for /app, links for volumes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tests import unets
from tests.pipeline.services import REPOSITORY, Process
from tests.servers import free_port

MODEL = "spleeter-2stems.onnx"
_DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name):
    """Yield the words of each instruction *name* of the Dockerfile that makes the final image."""
    stage = None
    for line in _DOCKERFILE.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["FROM"]:
            stage = words[3] if words[2:3] == ["AS"] else None
        elif words[:1] == [name] and stage in {None, "base"}:
            yield words[1:]


def make_image(app):
    """Make the image's /app, with a small net of made-up weights for its model."""
    app.mkdir(parents=True)
    for words in instructions("COPY"):
        *sources, target = words
        if sources[0].startswith("--from="):
            assert sources[1:] == [f"/app/models/{MODEL}"]
            unets.write(app / target / MODEL)
            continue
        for source in sources:
            if (REPOSITORY / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / source, app / target, ignore=ignored)
            else:
                shutil.copy(REPOSITORY / source, app / target)


class Container:
    """A service as a process that sees its container's files, environment and port.

    Args:
        name: the service's.
        root: where to make its files.
        command: its command.
        environ: what the image's environment is completed with.
        mounts: the folder that is mounted at each path.
    """

    def __init__(self, name, root, command, environ, mounts):
        self.app = root / "app"
        make_image(self.app)
        self._inside = {"/app": self.app, **mounts}
        for path, folder in mounts.items():
            if path.startswith("/app/"):
                self._link(self.app / Path(path).relative_to("/app"), folder)
        image = dict(word.split("=", 1) for words in instructions("ENV") for word in words)
        self.environ = {
            name: self.outside(value) for name, value in {**image, **environ}.items()
        } | {
            "TMPDIR": str(mounts["/tmp"]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # Each container has this port to itself.
        self.port_inside = self.environ["METRICS_PORT"]
        self.port = free_port()
        self.environ["METRICS_PORT"] = str(self.port)
        self._before = self._files()
        self.process = Process(name, self.environ, root, command=command, cwd=self.app)

    def _link(self, there, folder):
        if there.exists():
            # A new volume of Docker begins with what the image has there.
            if not list(folder.iterdir()):
                shutil.copytree(there, folder, dirs_exist_ok=True)
            shutil.rmtree(there)
        there.symlink_to(folder, target_is_directory=True)

    def outside(self, text):
        """Return *text* with the path of a mounted folder outside of the container."""
        for path, folder in self._inside.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{folder}{text.removeprefix(path)}"
        return text

    def written(self):
        """Return the files that were written outside of volumes, where all is read-only."""
        after = self._files()
        return [path for path in after if after[path] != self._before.get(path)]

    def _files(self):
        return {
            path: path.lstat().st_mtime_ns
            for path in self.app.rglob("*")
            if not any(part.is_symlink() for part in (path, *path.parents))
        }
