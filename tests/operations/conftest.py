"""Services in the background, started once for all tests here, which leave a processor and an
uploader at work.
"""

import json
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.pipeline.scripts import run
from tests.pipeline.services import Pipeline, until
from tools.services.board import Board, Instance


@dataclass
class Fleet:
    """Services of a pipeline's own, as scripts/services.py runs them."""

    pipeline: Pipeline

    def do(self, *arguments: str, **environ: str):
        """Run the script in the pipeline's folder, and return how it ended."""
        return run(
            self.pipeline,
            "services.py",
            *arguments,
            "--folder",
            str(self.pipeline.folder),
            **environ,
        )

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what is shown of each instance, by its name."""
        shown = json.loads(self.do("status", "--format", "json").stdout)
        return {one["name"]: one for one in shown["instances"]}

    def until(self, name: str, state: str, restarts: int = 0) -> Instance:
        """Wait until the supervisor sees an instance in a state, after so many restarts."""
        wanted = (name, state, restarts)

        def look() -> Instance | None:
            seen = Board(self.pipeline.folder).seen.instances
            return next(
                (one for one in seen if (one.name, one.state, one.restarts) == wanted), None
            )

        return until(look, f"{name} {state}")

    def log(self, name: str) -> str:
        """Return what an instance wrote."""
        return (self.pipeline.folder / "logs" / f"{name}.out").read_text(
            encoding="utf-8", errors="replace"
        )

    @property
    def left(self) -> list[psutil.Process]:
        """Return every process that runs in the folder."""
        here = str(self.pipeline.folder)
        everybody = psutil.process_iter(["cwd", "cmdline"])
        return [one for one in everybody if here in (one.info["cwd"], *(one.info["cmdline"] or []))]


@pytest.fixture(scope="session")
def fleet(kafka, _s3_server, tmp_path_factory):
    """A processor and an uploader."""
    fleet = Fleet(Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("fleet"), partitions=2))
    started = fleet.do("start")
    assert started.returncode == 0, started.stdout + started.stderr
    yield fleet
    if fleet.left:
        fleet.do("stop", "--timeout", "20")
    fleet.pipeline.end()


@pytest.fixture
def lone_fleet(kafka, _s3_server, tmp_path):
    """None yet, in a folder of the test's own."""
    fleet = Fleet(Pipeline(kafka, _s3_server, tmp_path))
    yield fleet
    if fleet.left:
        fleet.do("stop", "--timeout", "20")
    fleet.pipeline.end()
