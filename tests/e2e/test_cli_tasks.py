"""Tasks from the command line without a running service: the command does the work in its own process."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.keys import new_key
from command_line import Folder, ledger_call, terminal
from model_server import ModelServer
from model_server.replies import Calls, Fault, Text, by_turn

WORKING_SERVER = Path(__file__).parents[1] / "servers" / "working_server.py"

ASKING_SERVER = Path(__file__).parents[1] / "servers" / "asking_server.py"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_prompt_becomes_its_result_and_nothing_else_is_printed(folder: Folder) -> None:
    done = folder("run", "Add 15 and 27, then multiply the result by 2", "--yes")
    assert (done.returncode, done.stdout) == (0, "84\n")
    assert "calculator.multiply" in done.stderr
    assert "Plan approved." in done.stderr


def test_the_approval_names_the_plan_that_was_shown(folder: Folder) -> None:
    task = folder.json("run", "Add 15 and 27", "--yes")
    assert task["status"] == "completed"
    assert [made["digest"] for made in task["approvals"]] == [task["plan_digest"]]


@pytest.mark.slow
def test_a_prompt_may_come_from_standard_input(folder: Folder) -> None:
    assert folder("run", "-", "--yes", says="Add 15 and 27\n").stdout == "42\n"


@pytest.mark.slow
def test_without_a_terminal_the_plan_waits_and_the_way_on_is_shown(folder: Folder) -> None:
    done = folder("run", "Write a message saying hello to a file called x.txt")
    task_id = done.stdout.strip()
    assert done.returncode == 3
    assert f"agent_runtime approve {task_id}" in done.stderr
    assert not list(folder.files.iterdir())

    approved = folder("approve", task_id)
    assert approved.returncode == 0, approved.stderr
    assert (folder.files / "x.txt").read_text(encoding="utf-8") == "hello"


@pytest.mark.slow
def test_a_person_is_asked_and_says_yes(folder: Folder) -> None:
    with terminal(folder, "run", "Add 15 and 27") as shown:
        shown.wait_for("[y/n/r]")
        shown.type("what?\n")
        shown.wait_for("[y/n/r] ")
        shown.type("y\n")
        assert shown.finish() == (0, "42\n")


@pytest.mark.slow
def test_a_person_is_asked_and_says_no(folder: Folder) -> None:
    with terminal(folder, "run", "Write a message saying hello to a file called x.txt") as shown:
        shown.wait_for("[y/n/r]")
        shown.type("n\n")
        assert shown.finish() == (3, "")
    assert not list(folder.files.iterdir())
    assert [task["status"] for task in folder.json("tasks")["tasks"]] == ["rejected"]


@pytest.mark.slow
def test_ctrl_c_cancels_the_task_and_says_so(folder: Folder) -> None:
    with terminal(folder, "run", "Add 15 and 27") as shown:
        shown.wait_for("[y/n/r]")
        shown.interrupt()
        assert shown.finish() == (1, "")
        assert "Cancelling task" in shown.shown
    assert [task["status"] for task in folder.json("tasks")["tasks"]] == ["cancelled"]


@pytest.mark.slow
def test_a_plan_that_the_caller_may_not_approve_waits_for_somebody_who_may(folder: Folder) -> None:
    key, alice = new_key("alice", ["submit", "read"])
    folder.env["AGENT_RUNTIME_AUTH__KEYS"] = alice.line
    with folder.serve():
        folder.env["AGENT_RUNTIME_API_KEY"] = key
        done = folder("run", "Add 15 and 27", "--yes")
        assert done.returncode == 3
        assert "'alice' does not have the scope 'approve'" in done.stderr
        assert f"agent_runtime approve {done.stdout.strip()}" in done.stderr
        assert folder.json("show", done.stdout.strip())["status"] == "awaiting_approval"
        with terminal(folder, "run", "Add 15 and 27") as shown:
            shown.wait_for("[y/n/r]")
            shown.type("y\n")
            shown.wait_for("does not have the scope")
            assert shown.finish()[0] == 3


@pytest.mark.slow
def test_a_refusal_to_plan_is_told_whole_and_fails(folder: Folder) -> None:
    done = folder("run", "Write a haiku about autumn", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "configure a model" in done.stderr
    assert "agent_runtime call SERVER.TOOL NAME=VALUE" in done.stderr
    assert "agent_runtime run --plan FILE" in done.stderr


@pytest.mark.slow
def test_a_failed_step_is_named(folder: Folder) -> None:
    done = folder("run", "What is 10 divided by 0?", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed in step s1" in done.stderr


@pytest.mark.slow
def test_decisions_without_a_service(folder: Folder) -> None:
    first, second = folder.propose_task(), folder.propose_task("Add 1 and 2")
    assert folder("reject", first, "--reason", "not today").returncode == 0
    assert folder("cancel", second).returncode == 0
    shown = folder.json("show", first)
    assert (shown["status"], shown["approvals"][0]["comment"]) == ("rejected", "not today")
    assert folder.json("show", second)["status"] == "cancelled"
    refused = folder("approve", first)
    assert refused.returncode == 1
    assert "is rejected" in refused.stderr


@pytest.mark.slow
def test_another_plan_than_the_named_one_is_not_approved(folder: Folder) -> None:
    task_id = folder.propose_task()
    refused = folder("approve", task_id, "--digest", "sha256:" + "0" * 64)
    assert refused.returncode == 1
    assert "Read it again" in refused.stderr
    assert folder.json("show", task_id)["status"] == "awaiting_approval"


@pytest.mark.slow
def test_a_waiting_task_is_shown_with_all_that_is_to_be_approved(folder: Folder) -> None:
    task_id = folder.propose_task("Write a message saying hello to a file called x.txt")
    shown = folder("show", task_id)
    assert shown.returncode == 0
    assert re.search(r'content = "hello"', shown.stdout)
    assert "destructive, repeatable" in shown.stdout
    watched = folder("watch", task_id)
    assert (watched.returncode, watched.stdout) == (3, "")
    assert "awaits approval" in watched.stderr


@pytest.mark.slow
def test_one_task_is_taken_up_again_and_no_other(folder: Folder) -> None:
    folder.add_ledger(delay_s=30)
    with folder.serve() as service:
        ours, other = (service.submit(ledger_call("look"), approve=True) for _ in range(2))
        service.follow_until(ours, "tool.called")
        service.follow_until(other, "tool.called")
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(timeout=30)
    called = folder.ledger.read_text(encoding="utf-8").count("one")
    folder.add_ledger(delay_s=0)
    done = folder("watch", ours)
    assert (done.returncode, done.stdout) == (0, "counted one\n"), done.stderr
    assert folder.json("show", other)["status"] == "executing"
    assert folder.ledger.read_text(encoding="utf-8").count("one") == called + 1


@pytest.mark.slow
def test_a_call_of_unknown_outcome_is_resolved_by_a_person(folder: Folder) -> None:
    folder.add_ledger(delay_s=30)
    with folder.serve() as service:
        task_id = service.submit(ledger_call("count", timeout_s=0.2), approve=True)
        service.follow_until(task_id, "step.outcome_unknown")
    watched = folder("watch", task_id)
    assert watched.returncode == 3
    assert f"agent_runtime resolve {task_id} --step s1 --as done (or retry, skip, fail)" in watched.stderr
    output = json.dumps({"counted": 1})
    resolved = folder.json("resolve", task_id, "--step", "s1", "--as", "done", "--output", output)
    assert (resolved["status"], json.loads(resolved["result"])) == ("completed", {"counted": 1})
    assert folder.ledger.read_text(encoding="utf-8") == "one\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "got"),
    [
        (("--content", '{"name": "Ann"}'), {"action": "accept", "content": {"name": "Ann"}}),
        (("--decline",), {"action": "decline"}),
        (("--dismiss",), {"action": "cancel"}),
    ],
    ids=["answered", "declined", "dismissed"],
)
def test_a_question_of_a_server_is_answered_at_the_command_line(
    folder: Folder, words: tuple[str, ...], got: dict[str, Any]
) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(ASKING_SERVER)]}
    folder.write_registry({"id": "asking", "type": "local_stdio", "config": config, "tools": {"*": {"effect": "read"}}})
    step = {"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}
    with folder.serve() as service:
        task_id = service.submit({"goal": "Ask", "steps": [step]}, approve=True)
        service.follow_until(task_id, "input.requested")
        shown = folder("show", task_id)
        assert "The server asking asks you, in step s1: Who are you?" in shown.stderr
        (asked,) = folder.json("show", task_id)["attention"]
        answer = ("answer", task_id, "--question", asked["question_id"])
        assert f"agent_runtime {' '.join(answer)} --content JSON" in shown.stderr
        refused = folder(*answer, "--content", '{"name": ""}')
        assert (refused.returncode, "content.name" in refused.stderr) == (1, True)
        answered = folder(*answer, *words)
        assert answered.returncode == 0, answered.stderr
        watched = folder("watch", task_id)
    assert (watched.returncode, json.loads(watched.stdout)) == (0, got)


@pytest.mark.slow
def test_a_result_is_raw_in_a_pipe(folder: Folder) -> None:
    (folder.files / "odd.txt").write_bytes(b"red \x1b[31mtext")
    assert folder("run", "Read odd.txt", "--yes").stdout == "red \x1b[31mtext\n"


@pytest.mark.slow
def test_the_catalogue_says_what_is_unavailable_and_why(folder: Folder) -> None:
    folder.write_registry({"id": "gone", "type": "local_stdio", "config": {"command": "no-such-command"}})
    catalogue = folder.json("tools")
    assert {"read_file", "evaluate"} <= {tool["tool"] for tool in catalogue["tools"]}
    printed = folder("tools").stdout
    assert "filesystem.write_file" in printed
    assert "disabled in the tool registry" in printed
    assert "no-such-command" in printed


def test_a_person_says_what_should_be_different_and_sees_the_new_plan_with_its_difference(folder: Folder) -> None:
    with terminal(folder, "run", "Add 15 and 27") as shown:
        shown.wait_for("[y/n/r] ")
        shown.type("r\n")
        shown.wait_for("A plan can be changed by 'also ...', ")
        shown.wait_for("What should change? ")
        shown.type("then multiply the result by 2\n")
        shown.wait_for("+s2: ")
        shown.type("y\n")
        code, printed = shown.finish()
    assert (code, printed.strip()) == (0, "84")
    assert "revision 2" in shown.shown


@pytest.mark.slow
def test_a_person_who_asks_for_nothing_different_is_asked_again_and_ctrl_c_still_cancels(folder: Folder) -> None:
    with terminal(folder, "run", "Add 15 and 27") as shown:
        shown.wait_for("[y/n/r] ")
        shown.type("r\n")
        shown.wait_for("What should change? ")
        shown.type("\n")
        shown.wait_for("What should change? Run this plan? [y/n/r] ")
        shown.type("r\n")
        shown.wait_for("What should change? ")
        shown.interrupt()
        code, _ = shown.finish()
    assert code == 1
    assert "Cancelling task" in shown.shown


@pytest.mark.slow
def test_the_spinner_says_how_far_a_tool_is(folder: Folder) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(WORKING_SERVER)]}
    folder.write_registry({"id": "worker", "type": "local_stdio", "config": config})
    folder.env["TERM"] = "xterm"
    with terminal(folder, "call", "worker.stall", "label=1", "--yes") as shown:
        shown.wait_for("Waiting for the answer of the tool")
        shown.wait_for("part 1 with None")
        shown.interrupt()
        code, printed = shown.finish()
    assert code != 0
    assert "part 1" not in printed


@pytest.mark.slow
def test_revise_without_words_asks_a_person_and_refuses_a_pipe(folder: Folder) -> None:
    task_id = folder.propose_task()
    assert "FEEDBACK: The feedback is empty: describe the changes." in folder("revise", task_id).stderr
    with terminal(folder, "revise", task_id) as shown:
        shown.wait_for("A plan can be changed by 'also ...', ")
        shown.wait_for("What should change? ")
        shown.type("then multiply the result by 2\n")
        shown.wait_for("+s2: ")
        assert shown.finish()[0] == 3


@pytest.mark.slow
def test_a_waiting_task_is_revised_from_the_command_line(folder: Folder) -> None:
    task_id = folder.propose_task()
    done = folder("revise", task_id, "then multiply the result by 2")
    assert done.returncode == 3, done.stderr
    assert "+s2: " in done.stderr
    digest = folder.json("show", task_id)["plan_digest"]
    assert f"agent_runtime approve {task_id} --digest {digest}" in done.stderr
    unnamed = folder("approve", task_id)  # the person may have read the first revision
    assert unnamed.returncode == 1
    assert digest in unnamed.stderr
    assert folder.json("show", task_id)["status"] == "awaiting_approval"
    approved = folder("approve", task_id, "--digest", digest)
    assert (approved.returncode, approved.stdout.strip()) == (0, "84")
    assert folder("revise", task_id, "again").returncode == 1


@pytest.mark.slow
def test_a_task_that_cannot_be_revised_shows_why_at_the_command_line_and_keeps_its_plan(folder: Folder) -> None:
    task_id = folder.propose_task()
    done = folder("revise", task_id, "with more gusto")
    assert done.returncode == 3, done.stderr
    assert "No other plan could be made: " in done.stderr
    task = folder.json("show", task_id)
    assert (task["status"], task["plan_revision"]) == ("awaiting_approval", 1)
    assert f"agent_runtime approve {task_id} --digest {task['plan_digest']}" in done.stderr
    unnamed = folder("approve", task_id)  # the person may believe that there is another plan
    assert (unnamed.returncode, task["plan_digest"] in unnamed.stderr) == (1, True)
    approved = folder("approve", task_id, "--digest", task["plan_digest"])
    assert (approved.returncode, approved.stdout.strip()) == (0, "42")


@pytest.mark.slow
def test_feedback_that_says_nothing_is_refused_at_the_command_line(folder: Folder) -> None:
    task_id = folder.propose_task()
    assert folder("revise", task_id, " ").returncode == 1


AGENT_PLAN = json.dumps(
    {
        "goal": "Greet",
        "steps": [
            {
                "id": "s1",
                "title": "Greet somebody",
                "kind": "agent",
                "instruction": "Greet in a file.",
                "tools": [
                    {"server": "filesystem", "tool": "write_file", "max_calls": 2},
                    {"server": "calculator", "tool": "evaluate"},
                ],
            }
        ],
    }
)


@pytest.fixture
def models(folder: Folder) -> Iterator[ModelServer]:
    """A model that plans an agent step, in which it proposes a write."""
    with ModelServer() as server:
        folder.env |= {"OPENAI_BASE_URL": server.base_url, "AGENT_RUNTIME_OPENAI__MAX_RETRIES": "0"}
        greet = Calls([("filesystem__write_file", {"path": "b.txt", "content": "hello"})])
        server.on("Greet in a file.", by_turn(greet, Text("Greeted.")))
        server.on("Say hello", Text(AGENT_PLAN))
        yield server


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_what_a_model_wants_to_send_is_asked_for_though_the_plan_was_approved(folder: Folder) -> None:
    done = folder("run", "Say hello", "--yes")
    task_id = done.stdout.strip()
    assert done.returncode == 3
    assert "destructive, asks for each call" in done.stderr
    assert "filesystem.write_file x2" in done.stderr
    assert 'content = "hello"' in done.stderr
    assert not list(folder.files.iterdir())
    (asked,) = folder.json("show", task_id)["attention"]
    assert f"agent_runtime approve {task_id} --call {asked['call_id']}" in done.stderr
    watched = folder("watch", task_id)
    assert (watched.returncode, watched.stdout) == (3, "")
    for wrong in ('{"path": 5}', "[]", "no JSON"):
        refused = folder("approve", task_id, "--call", asked["call_id"], "--arguments", wrong)
        assert refused.returncode != 0
    assert folder("approve", task_id, "--arguments", "{}").returncode == 1
    edited = json.dumps({"path": "b.txt", "content": "hi"})
    approved = folder("approve", task_id, "--call", asked["call_id"], "--arguments", edited)
    assert (approved.returncode, approved.stdout) == (0, "Greeted.\n"), approved.stderr
    assert (folder.files / "b.txt").read_text(encoding="utf-8") == "hi"


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False)])
@pytest.mark.usefixtures("models")
def test_a_person_at_a_terminal_decides_on_the_plan_and_on_the_call(
    folder: Folder, answer: str, *, written: bool
) -> None:
    with terminal(folder, "run", "Say hello") as shown:
        shown.wait_for("[y/n/r] ")
        shown.type("y\n")
        shown.wait_for("Send this call? [y/n] ")
        assert 'path = "b.txt"' in shown.shown
        shown.type(f"{answer}\n")
        assert shown.finish() == (0, "Greeted.\n")
    assert (folder.files / "b.txt").exists() == written


@pytest.mark.slow
def test_a_person_at_a_terminal_sees_what_the_model_writes_while_it_plans(folder: Folder, models: ModelServer) -> None:
    models.next(Fault("hang", AGENT_PLAN))
    folder.env["TERM"] = "xterm"
    with terminal(folder, "run", "Say hello") as shown:
        shown.wait_for("Submitted")
        models.release()
        shown.wait_for("[y/n/r] ")
        written, _, after = shown.shown.partition("Plan proposed")
        assert "\x1b[2m" in written
        assert '"instruction": "Greet in a file."' in re.sub(r"\x1b\[[0-9;]*m", "", written)
        assert "\x1b[2m" not in after
        shown.type("n\n")
        shown.finish()
    assert '"instruction"' not in folder("run", "Say hello").stderr


@pytest.mark.slow
def test_a_model_that_fails_is_told_in_one_line(folder: Folder, models: ModelServer) -> None:
    models.next(Fault("wrong_key"))
    done = folder("run", "Say hello", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "set OPENAI_API_KEY" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_id_may_be_shortened_and_the_newest_task_is_the_last(folder: Folder) -> None:
    first, second = folder.propose_task(), folder.propose_task("Add 1 and 2")
    assert folder.json("show", "last")["task_id"] == second
    assert folder.json("show", first[:-3])["task_id"] == first
    assert folder.json("show", second.removeprefix("task_")[:-3])["task_id"] == second
    several = folder("show", "task_0")
    assert several.returncode == 1
    assert f"2 tasks begin with 'task_0': type more of it. {second}, {first}" in several.stderr
    assert "There is no task 'task_f'" in folder("show", "task_f").stderr
    assert folder.json("approve", "last")["result"] == "3"
    assert folder.json("audit", "export", "last")["task_id"] == second
    with folder.serve() as service:
        assert folder.json("show", "last")["task_id"] == second
        assert folder.json("cancel", first[:-3], "--server", service.url)["status"] == "cancelled"


@pytest.mark.slow
def test_commands_that_only_read_create_nothing(folder: Folder) -> None:
    before = sorted(folder.path.rglob("*"))
    assert folder.json("tasks") == {"tasks": [], "next_cursor": None}
    assert "There is no task 'task_0'" in folder("show", "task_0").stderr
    assert folder("approve", "task_0").returncode == 1
    assert any(tool["tool"] == "add" for tool in folder.json("tools")["tools"])
    assert "the first task creates it" in folder("doctor").stdout.replace("\n", " ")
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.slow
def test_there_is_no_last_task_where_there_are_none(folder: Folder) -> None:
    done = folder("show", "last")
    assert done.returncode == 1
    assert "There are no tasks, so there is no last one." in done.stderr
