"""Fixtures of tests that run the services as processes."""

import pytest

from tests.pipeline.services import Pipeline
from tests.pipeline.world import World


@pytest.fixture
def pipeline(kafka, _s3_server, tmp_path):
    """Topics, groups, a bucket and folders of this test's own; its processes end with it."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def own_pipeline(own_kafka, _s3_server, tmp_path):
    """The same on a broker of this test's own, which it may kill and start again."""
    pipeline = Pipeline(own_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def world():
    """Who serves songs and receives callbacks."""
    world = World()
    yield world
    world.end()


@pytest.fixture(scope="module")
def shared_world():
    """One such world for all tests of a module that only add to it."""
    world = World()
    yield world
    world.end()


@pytest.fixture(scope="module")
def running(kafka, _s3_server, tmp_path_factory):
    """A pipeline with one processor and one uploader at work, for all tests of a module that leave
    it so.
    """
    pipeline = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("running"))
    pipeline.started("processor", "uploader")
    yield pipeline
    pipeline.end()
