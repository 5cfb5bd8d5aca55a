"""Limits of open descriptors: for the service, its connections and its child processes."""

import subprocess
import sys

import pytest

from agent_runtime.config import LimitSettings, Settings, fit_connections

SCRIPT = """
import resource, subprocess, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from agent_runtime.config import before_exec, raise_descriptor_limit
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
sys.stdout.flush()
ask = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
subprocess.run([sys.executable, "-c", ask], preexec_fn=before_exec(), check=True)
"""


def raise_limit(soft: int, hard: int) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_the_limit_is_raised_to_the_hard_one_and_children_keep_the_old_one() -> None:
    assert raise_limit(96, 4096) == ["4096 4096 4096", "96 4096"]
    assert raise_limit(96, 96) == ["96 96 96", "96 96"]


@pytest.mark.parametrize(
    ("descriptors", "connections", "streams"),
    [(65_536, 10_000, 2000), (4096, 2048, 1536), (1024, 512, 384), (96, 32, 24), (32, 8, 6)],
)
def test_connections_leave_descriptors_to_tasks_and_streams_leave_connections_to_requests(
    descriptors: int, connections: int, streams: int
) -> None:
    limits = fit_connections(Settings(), descriptors).limits
    assert (limits.connections, limits.stream_clients) == (connections, streams)


def test_what_the_operator_set_is_never_raised() -> None:
    settings = Settings(limits=LimitSettings(connections=20, stream_clients=5))
    assert fit_connections(settings, 65_536) == settings
    one = Settings(limits=LimitSettings(connections=1))
    assert fit_connections(one, 65_536).limits.stream_clients == 1
