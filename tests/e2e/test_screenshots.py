"""The screenshots of the documentation are made by a script."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from browser import CHROMIUM, PHONE

ROOT = Path(__file__).parents[2]
SIZES = {"page.png": (1280, 860), "page-phone.png": PHONE}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: the screenshots need Chromium, and this machine has none")
def test_the_script_makes_every_screenshot_of_the_documentation(tmp_path: Path) -> None:
    script = str(ROOT / "docs" / "_site" / "screenshots.py")
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    made = {file.name: struct.unpack(">II", file.read_bytes()[16:24]) for file in tmp_path.glob("*.png")}
    assert made == SIZES
    assert set(made) == {file.name for file in (ROOT / "docs" / "images").glob("*.png")}
