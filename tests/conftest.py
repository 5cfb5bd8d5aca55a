"""Fixtures and settings of all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

from harness import House

settings.register_profile("everyday", derandomize=True, deadline=None)
settings.load_profile("everyday")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)
