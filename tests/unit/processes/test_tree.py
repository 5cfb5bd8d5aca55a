"""The descendants of a process: found, kept as orphans, reaped and killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.processes.tree import find_descendants, is_descendant, is_hidden, list_processes
from killing import PATIENCE_S
from waiting import eventually_sync

SERVICE = """
import os, subprocess, sys
from agent_runtime.processes.tree import keep_orphans
with keep_orphans():
    # A child that leaves a daemon in a session of its own, and ends.
    daemon = "import os, sys, time; os.setsid(); os.fork() and os._exit(0); "
    daemon += "print(os.getpid(), flush=True); time.sleep(float(sys.argv[1]))"
    subprocess.run([sys.executable, "-S", "-E", "-c", daemon, sys.argv[1]])
    sys.stdin.readline()
print("ended", flush=True)
"""


def start(daemon_s: float) -> tuple[subprocess.Popen[str], int]:
    """Start a process that keeps orphans, and return it with the id of its daemon, which lives for `daemon_s`."""
    words = [sys.executable, "-c", SERVICE, str(daemon_s)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate("\n", timeout=PATIENCE_S)
    assert said == "ended\n"
    assert process.returncode == 0


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_an_orphan_becomes_a_child_and_is_killed_at_the_end() -> None:
    process, daemon = start(600)
    eventually_sync(lambda: find_descendants(process.pid) == [daemon])
    assert is_descendant(daemon, process.pid)
    finish(process)
    assert not exists(daemon)


@pytest.mark.slow
def test_an_orphan_that_ends_is_reaped() -> None:
    process, daemon = start(0.1)
    eventually_sync(lambda: not exists(daemon))
    finish(process)


def test_what_ran_before_is_left_alone() -> None:
    """As when a shell starts something and then becomes the service."""
    shell = f"sleep 600 >&2 & echo $!; exec {sys.executable} -c '{SERVICE}' 600"
    process = subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    before, daemon = int(process.stdout.readline()), int(process.stdout.readline())
    finish(process)
    assert exists(before)
    assert not exists(daemon)
    os.kill(before, 9)


def test_a_grandchild_is_a_descendant_and_others_are_not() -> None:
    words = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        grandchild = int(child.stdout.readline())
        assert {child.pid, grandchild} <= set(find_descendants(os.getpid()))
        assert is_descendant(grandchild, os.getpid())
        assert not is_descendant(os.getpid(), child.pid)
        assert not is_descendant(1, os.getpid())
        os.kill(grandchild, 9)
    assert not {child.pid, grandchild} & set(find_descendants(os.getpid()))


def test_a_child_counts_until_it_is_reaped() -> None:
    code = "import os, subprocess; from agent_runtime.processes.tree import has_children\n"
    code += "print(has_children()); child = subprocess.Popen(['true']); print(has_children())\n"
    code += "os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT); print(has_children())\n"
    code += "child.wait(); print(has_children())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.split() == ["False", "True", "True", "False"]


def test_the_newest_processes_come_first() -> None:
    found = list_processes()
    assert os.getpid() in found
    assert found == sorted(found, reverse=True)


def test_a_process_that_is_gone_is_not_hidden() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert not is_hidden(child.pid)
    assert not is_hidden(os.getpid())
