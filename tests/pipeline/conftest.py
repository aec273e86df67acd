import pytest

from tests.pipeline.services import Pipeline
from tests.pipeline.world import World


@pytest.fixture
def pipeline(kafka, _s3_server, tmp_path):
    """Topics, groups, a bucket and folders of this test's own; its processes end with it."""
    pipeline = Pipeline(kafka.bootstrap_servers, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def world():
    """Who serves songs and receives callbacks."""
    world = World()
    yield world
    world.end()
