"""Protection of the process: the descriptors of new processes, and the rest of the environment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_runtime.config import before_exec
from agent_runtime.config.new_process import close_each

LIST = "import os; print(sorted(int(name) for name in os.listdir('/dev/fd'))[:-1])"
PROTECT = """
import os
from agent_runtime.config import Secrets, load_settings, protect_process
secrets = Secrets()
protect_process(load_settings(secrets=secrets))
print(sorted(os.environ), [secrets.expand("${env:%s}" % name) for name in ("GIVEN", "MY_TOKEN", "HOME")])
"""


@pytest.mark.parametrize("close_others", [before_exec(), close_each], ids=["at once", "one by one"])
def test_a_new_process_has_its_standard_streams_only(close_others: Callable[[], None]) -> None:
    readable, writable = os.pipe()
    try:
        for descriptor in (readable, writable):
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - its shape
        done = subprocess.run(
            [sys.executable, "-I", "-c", LIST],
            close_fds=False,
            preexec_fn=close_others,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    finally:
        os.close(readable)
        os.close(writable)
    assert done.stdout == "[0, 1, 2]\n"


def test_secrets_leave_the_environment_and_stay_at_hand(tmp_path: Path) -> None:
    (tmp_path / "tool_registry.yaml").write_text("x: '${env:GIVEN} ${env:HOME} ${env:UNSET}'", encoding="utf-8")
    env = {"HOME": "/home/me", "GIVEN": "one", "MY_TOKEN": "two", "OTHER": "three"}
    done = subprocess.run(
        [sys.executable, "-c", PROTECT], cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=30
    )
    names, _, values = done.stdout.partition("] ")
    assert "'HOME'" in names
    assert "'OTHER'" in names
    assert "GIVEN" not in names
    assert "MY_TOKEN" not in names
    assert values == "['one', 'two', '/home/me']\n"
