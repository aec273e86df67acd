"""Fixtures of tests that run the services as processes."""

import shutil

import pytest

from tests.pipeline.services import REPOSITORY, Pipeline
from tests.pipeline.world import World


@pytest.fixture
def pipeline(kafka, _s3_server, tmp_path):
    """This test's topics, groups, bucket and folders; its processes end with it."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def own_pipeline(own_kafka, _s3_server, tmp_path):
    """The same on this test's broker, which it may kill and restart."""
    pipeline = Pipeline(own_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def world():
    """A server of songs and receiver of callbacks."""
    world = World()
    yield world
    world.end()


@pytest.fixture(scope="module")
def shared_world():
    """One such server for all tests of a module that only add to it."""
    world = World()
    yield world
    world.end()


@pytest.fixture(scope="module")
def running(kafka, _s3_server, tmp_path_factory):
    """A pipeline with one processor and one uploader, for all tests of a module that keep it so."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("running"))
    pipeline.started("processor", "uploader")
    yield pipeline
    pipeline.end()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout, so that its `.env` can be written."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("common", "scripts", "tools", "requirements"):
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("config.py", "processor.py", "uploader.py", "requirements.txt"):
        shutil.copy(REPOSITORY / name, copy)
    # Those that need development dependencies enter it.
    (copy / ".venv").symlink_to(REPOSITORY / ".venv", target_is_directory=True)
    return copy
