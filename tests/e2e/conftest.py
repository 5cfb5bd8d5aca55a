"""Fixtures of the tests over the wire."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that the tests of a module share. Each test uses its own tasks."""
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A running service that a test may restart."""
    with Service(tmp_path) as service:
        yield service
