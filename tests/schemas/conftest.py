"""The consumer of the schemas in Node."""

import pytest

from tests.schemas.validators import Node


@pytest.fixture(scope="session")
def node():
    """The consumer; tests that need it are skipped where it cannot be installed."""
    installed = Node.installed()
    if isinstance(installed, str):
        pytest.skip(installed)
    return installed
