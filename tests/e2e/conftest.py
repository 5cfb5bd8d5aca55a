"""What the tests over the wire share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service, shared by the tests of a module; each makes its own tasks."""
    yield from _running(Service(tmp_path_factory.mktemp("service")))


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A running service that a test may stop and start again."""
    yield from _running(Service(tmp_path))


def _running(service: Service) -> Iterator[Service]:
    service.start()
    try:
        yield service
    finally:
        service.client.close()
        service.stop()
