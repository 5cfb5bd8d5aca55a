"""What all tests may ask for."""

from pathlib import Path

import pytest

from harness import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)
