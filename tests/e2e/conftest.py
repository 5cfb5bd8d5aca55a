"""Fixtures of the tests over the wire."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser
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


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser whose page must make no mistake."""
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the page needs Chromium, and this machine has none")
    browser = Browser(tmp_path / "browser")
    try:
        yield browser
        assert not browser.mistakes
    finally:
        browser.close()
