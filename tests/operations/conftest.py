"""Services in the background, started once for all tests here: a processor and an uploader."""

import json
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.pipeline.scripts import run
from tests.pipeline.services import Pipeline, until
from tools.services.state_files import Instance, StateFiles


@dataclass
class Fleet:
    """The services of a pipeline, run by scripts/services.py."""

    pipeline: Pipeline

    def do(self, *arguments: str, **environ: str):
        """Run the script in the pipeline's folder and return the completed process."""
        return run(
            self.pipeline,
            "services.py",
            *arguments,
            "--folder",
            str(self.pipeline.folder),
            **environ,
        )

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of each instance, by name."""
        shown = json.loads(self.do("status", "--format", "json").stdout)
        return {one["name"]: one for one in shown["instances"]}

    def until(self, name: str, state: str, restarts: int = 0) -> Instance:
        """Wait until the supervisor reports this state and number of restarts."""
        expected = (name, state, restarts)

        def look() -> Instance | None:
            instances = StateFiles(self.pipeline.folder).observed.instances
            return next(
                (one for one in instances if (one.name, one.state, one.restarts) == expected), None
            )

        return until(look, f"{name} {state}")

    def log(self, name: str) -> str:
        """Return the output of an instance."""
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
    """No instances yet, in a folder of their own."""
    fleet = Fleet(Pipeline(kafka, _s3_server, tmp_path))
    yield fleet
    if fleet.left:
        fleet.do("stop", "--timeout", "20")
    fleet.pipeline.end()
