"""What the tests over the wire share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service, shared by the tests of a module; each makes its own tasks."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A running service that a test may stop and start again."""
    with Service(tmp_path) as service:
        yield service
