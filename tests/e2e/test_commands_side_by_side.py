"""Commands in several terminals without a service: they share one, and none takes it away from the others."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from command_line import Folder, Terminal, ledger_call, terminal
from waiting import eventually_sync


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.slow
def test_a_second_command_does_its_work_while_the_first_waits_for_a_person(folder: Folder) -> None:
    with terminal(folder, "run", "Add 15 and 27") as first:
        first.wait_for("[y/n/r]")
        second = folder("run", "Add 1 and 2", "--yes")
        assert (second.returncode, second.stdout) == (0, "3\n"), second.stderr
        first.type("y\n")
        assert first.finish() == (0, "42\n")
    assert [task["status"] for task in folder.json("tasks")["tasks"]] == ["completed", "completed"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["it ends", "it is killed"])
def test_the_second_command_goes_on_where_the_first_has_ended(folder: Folder, end: str) -> None:
    with terminal(folder, "run", "Add 15 and 27") as first:
        first.wait_for("[y/n/r]")
        with terminal(folder, "run", "Add 1 and 2") as second:
            second.wait_for("[y/n/r]")
            end_first(first, end)
            second.type("y\n")
            assert second.finish() == (0, "3\n"), second.shown


def end_first(first: Terminal, end: str) -> None:
    if end == "it ends":
        first.type("n\n")
        assert first.finish() == (3, "")
    else:
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(timeout=30)


@pytest.mark.slow
def test_the_first_command_ends_after_the_calls_of_the_second(folder: Folder) -> None:
    folder.add_ledger(delay_s=3)
    plan = folder.path / "plan.json"
    plan.write_text(json.dumps(ledger_call("count")), encoding="utf-8")
    with terminal(folder, "run", "Add 15 and 27") as first:
        first.wait_for("[y/n/r]")
        with terminal(folder, "run", "--plan", str(plan), "--yes") as second:
            eventually_sync(folder.ledger.exists)
            first.type("y\n")
            first.wait_for("A task of another command runs in this one")
            assert second.finish() == (0, "counted one\n"), second.shown
            assert first.finish() == (0, "42\n"), first.shown
    assert folder.ledger.read_text(encoding="utf-8") == "one\n"


@pytest.mark.slow
def test_no_command_takes_the_storage_of_a_service_that_restarts(folder: Folder) -> None:
    with ExitStack() as running:
        service = running.enter_context(folder.serve())
        shown = running.enter_context(terminal(folder, "run", "Add 15 and 27"))
        shown.wait_for("[y/n/r]")
        service.stop()
        assert not json.loads((folder.path / "data" / "agent-runtime.lock").read_text())["brief"]
        running.enter_context(folder.serve())
        shown.type("y\n")
        assert shown.finish() == (0, "42\n"), shown.shown
