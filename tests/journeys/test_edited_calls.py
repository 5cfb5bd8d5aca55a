"""G4, G5: who may submit and approve has a call sent with other arguments than were shown, and exactly with these."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, ApproveCall, Resolve
from agent_runtime.domain.audit_export import export, find_export_faults
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.conversation import conversation
from agent_runtime.domain.errors import DecisionRefusedError, InvalidInputError, ScopeMissingError
from agent_runtime.domain.events import CallApproved, ToolCalled
from agent_runtime.domain.plan import AgentStep, Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import AskedCall, StepStatus, Task
from agent_runtime.domain.tools import ServerDenial
from agent_runtime.domain.transitions import replay
from agent_runtime.domain.values import digest
from agent_runtime.services.task_manager import RerunSubmission
from harness import ANN, House, submit_plan, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn

BOB = Caller("bob", "default", frozenset({"read", "approve"}), "key")
ASKS: dict[str, Any] = {"count": {"approval": "call", "open_world": False}, "*": {"open_world": False}}


def write_plan(**arguments: Any) -> Plan:
    """Return a plan that writes what the ledger says, which comes from outside, so that a person is asked."""
    given = {"path": "said.txt", "content": "It said: ${look.text}", **arguments}
    steps = [
        {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "one"}},
        {"id": "save", "kind": "tool", "server": "filesystem", "tool": "write_file", "arguments": given},
        {
            "id": "read",
            "kind": "tool",
            "server": "filesystem",
            "tool": "read_file",
            "arguments": {"path": "said.txt"},
            "depends_on": ["save"],
        },
    ]
    return Plan.model_validate({"goal": "keep what it says", "steps": steps})


def count_plan(tool: str = "count", **step: Any) -> Plan:
    call = {"id": "s1", "kind": "tool", "server": "ledger", "tool": tool, "arguments": {"label": "one"}, **step}
    return Plan.model_validate({"goal": "count", "steps": [call]})


async def run_until_asking(runtime: Runtime, plan: Plan) -> tuple[Task, AskedCall]:
    task = await submit_plan(runtime, plan)
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    task = await until_settled(runtime, task.task_id)
    return task, asked_in(task)


def asked_in(task: Task) -> AskedCall:
    (asked,) = [step.asked for step in task.steps.values() if step.status is StepStatus.ASKING]
    assert asked
    return asked


def edit(asked: AskedCall, **arguments: Any) -> ApproveCall:
    given = asked.arguments | arguments
    return ApproveCall(call_id=asked.call_id, arguments_digest=asked.arguments_digest, edited_arguments=given)


@pytest.fixture
def outside(house: House) -> House:
    house.write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    return house


@pytest.fixture
def careful(house: House) -> House:
    house.write_registry(tools=ASKS)
    return house


async def test_a_call_is_sent_with_the_arguments_that_its_approver_wrote(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, write_plan())
        await runtime.tasks.decide(task.task_id, edit(asked, content="Nothing of note."), ANN)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
        stored = await runtime.tasks.load_stored_journal(task.task_id, ANYBODY)
    sent = {"path": "said.txt", "content": "Nothing of note."}
    assert (end.status, end.results["read"].text) == (TaskStatus.COMPLETED, "Nothing of note.")
    assert (outside.files / "said.txt").read_text() == "Nothing of note."
    (approved,) = [record.event for record in journal if isinstance(record.event, CallApproved)]
    assert (approved.arguments_digest, approved.actor) == (asked.arguments_digest, "ann")
    assert (approved.edited_arguments, approved.edited_digest) == (sent, digest(sent))
    assert "ann" in end.authors
    assert (end.plan_digest, end.contract) == (task.plan_digest, task.contract)
    assert replay(task.task_id, journal) == end
    document = export(stored)
    assert find_export_faults(document) == []
    assert [made["edited_arguments"] for made in document["approvals"] if "edited_arguments" in made] == [sent]
    assert sent in [call["arguments"] for call in document["calls"]]


async def test_the_arguments_that_were_shown_are_no_edit(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, write_plan())
        await runtime.tasks.decide(task.task_id, edit(asked), BOB)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
    (approved,) = [record.event for record in journal if isinstance(record.event, CallApproved)]
    assert (end.status, approved.edited_arguments, "bob" in end.authors) == (TaskStatus.COMPLETED, None, False)


@pytest.mark.parametrize("scopes", [("approve",), ("approve", "read"), ("submit", "read")])
async def test_only_who_may_submit_and_approve_edits_a_call(outside: House, scopes: tuple[str, ...]) -> None:
    caller = Caller("carl", "default", frozenset(scopes), "key")
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, write_plan())
        with pytest.raises(ScopeMissingError, match="'submit'" if "approve" in scopes else "'approve'"):
            await runtime.tasks.decide(task.task_id, edit(asked, content="mine"), caller)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


async def test_arguments_that_no_rule_allows_are_refused_by_name_and_change_nothing(house: House) -> None:
    house.write_registry(
        tools={"look": {"effect": "read", "idempotent": True}, **ASKS},
        deny=[{"tool": "count", "arguments": {"label": "secret*"}, "reason": "not that"}],
    )
    house.limit(argument_bytes=1000)
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"label": 5}, "edited_arguments.label", "is not of type 'string'"),
        ({"more": 1}, "edited_arguments.more", "no such argument"),
        ({"label": "secret plan"}, "edited_arguments", "not that"),
        ({"label": "x" * 1000}, "edited_arguments", "limits.argument_bytes"),
        ({"label": "\ud800"}, "edited_arguments", "JSON cannot hold them exactly"),
        ({"label": nest(65)}, "edited_arguments", "more than 64 deep"),
        ({"label": nest(5000)}, "edited_arguments", "more than 64 deep"),
    ]
    async with house.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan())
        for arguments, field, why in wrong:
            with pytest.raises(InvalidInputError) as refused:
                await runtime.tasks.decide(task.task_id, edit(asked, **arguments), ANN)
            (fault,) = refused.value.faults
            assert (fault.field, why in fault.message) == (field, True), fault
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task
        await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        await until_settled(runtime, task.task_id)
    assert house.counted == ["two"]


def nest(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


async def test_a_journal_without_room_for_the_call_takes_no_edit(careful: House) -> None:
    async with careful.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan())
    careful.limit(journal_bytes=100)
    async with careful.open() as runtime:
        with pytest.raises(InvalidInputError, match=r"limits\.journal_bytes"):
            await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


async def test_references_in_edited_arguments_are_text(outside: House) -> None:
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, write_plan())
        await runtime.tasks.decide(task.task_id, edit(asked, content="${look.text}"), ANN)
        await until_settled(runtime, task.task_id)
    assert (outside.files / "said.txt").read_text() == "${look.text}"


@pytest.mark.parametrize("path", ["../escaped.txt", "/escaped.txt", "link/escaped.txt"])
async def test_an_edited_path_does_not_leave_the_root_of_its_server(outside: House, path: str) -> None:
    (outside.files / "link").symlink_to(outside.folder)
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, write_plan())
        await runtime.tasks.decide(task.task_id, edit(asked, path=path), ANN)
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert (end.status, end.error.step_id) == (TaskStatus.FAILED, "save")
    assert not [*outside.folder.glob("**/escaped.txt")]


async def test_an_edit_brings_no_secret_back_that_was_taken_out_of_a_result(outside: House) -> None:
    hidden = "swordfish-0815-kraken"
    config = next(entry for entry in outside.entries if entry["id"] == "ledger")["config"]
    env = config["env"] | {"API_TOKEN": hidden}
    outside.write_registry(tools={"look": {"effect": "read", "idempotent": True}}, config=config | {"env": env})
    steps = write_plan().model_dump(mode="json")["steps"]
    steps[0]["arguments"] = {"label": hidden}
    async with outside.open() as runtime:
        task, asked = await run_until_asking(runtime, Plan.model_validate({"goal": "g", "steps": steps}))
        assert asked.arguments["content"] == "It said: counted [redacted]"
        await runtime.tasks.decide(task.task_id, edit(asked, path="said.txt", content="counted [redacted] too"), ANN)
        await until_settled(runtime, task.task_id)
    assert (outside.files / "said.txt").read_text() == "counted [redacted] too"


async def test_of_two_editors_at_once_one_wins_and_nothing_is_edited_after_the_decision(careful: House) -> None:
    async with careful.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan())
        edits = [edit(asked, label=f"n{number}") for number in range(10)]
        given = await asyncio.gather(
            *(runtime.tasks.decide(task.task_id, one, ANN) for one in edits), return_exceptions=True
        )
        assert sum(isinstance(one, DecisionRefusedError) for one in given) == len(edits) - 1
        end = await until_settled(runtime, task.task_id)
        with pytest.raises(DecisionRefusedError, match="already decided"):
            await runtime.tasks.decide(task.task_id, edit(asked, label="late"), ANN)
    won = next(number for number, one in enumerate(given) if isinstance(one, Task))
    assert (end.status, careful.counted) == (TaskStatus.COMPLETED, [f"n{won}"])


async def test_a_crash_between_the_edit_and_the_call_sends_the_edited_call_once(careful: House) -> None:
    async with careful.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan())
        await runtime.store.append(task, runtime.tasks.check(task, edit(asked, label="two"), ANN))  # nobody is woken
    async with careful.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert (end.status, careful.counted) == (TaskStatus.COMPLETED, ["two"])


async def test_a_repetition_sends_the_edited_arguments(house: House) -> None:
    house.write_registry(tools={"fail": {"approval": "call", "idempotent": True}, "*": {"open_world": False}})
    async with house.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan("fail", retries=2))
        await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        end = await until_settled(runtime, task.task_id)
    assert (end.status, house.counted) == (TaskStatus.FAILED, ["two"] * 3)


async def test_a_call_of_unknown_outcome_is_asked_for_again_as_it_was_sent(careful: House) -> None:
    careful.write_registry(tools=ASKS, delay_s=30)
    careful.limit(cancel_grace_s=0.1)
    async with careful.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan(timeout_s=0.5))
        await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        task = await until_settled(runtime, task.task_id)
        assert task.unknown_steps == ("s1",)
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="retry"), ANYBODY)
        task = await until_settled(runtime, task.task_id)
        again = asked_in(task)
        assert (again.arguments, again.call_id != asked.call_id) == ({"label": "two"}, True)
        (careful.folder / "delay.txt").write_text("0", encoding="utf-8")
        await runtime.tasks.decide(
            task.task_id, ApproveCall(call_id=again.call_id, arguments_digest=again.arguments_digest), BOB
        )
        end = await until_settled(runtime, task.task_id)
    assert (end.status, careful.counted) == (TaskStatus.COMPLETED, ["two", "two"])


async def test_what_a_registry_that_became_stricter_denies_is_not_sent_though_it_was_edited(careful: House) -> None:
    async with careful.open() as runtime:
        task, asked = await run_until_asking(runtime, count_plan())
        await runtime.store.append(task, runtime.tasks.check(task, edit(asked, label="two"), ANN))
    careful.set_approval(deny=(ServerDenial(server="ledger", tool="count", arguments={"label": "two"}),))
    async with careful.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert (end.status, end.error.code, careful.counted) == (TaskStatus.FAILED, "denied", [])


async def test_a_rerun_takes_over_the_result_of_what_was_sent_and_its_editor(house: House) -> None:
    house.write_registry(tools={"look": {"approval": "call", "idempotent": True}, "*": {"open_world": False}})
    look = {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "one"}}
    fail = {**look, "id": "fail", "tool": "fail", "arguments": {"label": "${look.text}"}}
    async with house.open() as runtime:
        task, asked = await run_until_asking(
            runtime, Plan.model_validate({"goal": "g", "steps": [look, {**fail, "preapproved": True}]})
        )
        await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.FAILED
        again = await runtime.tasks.rerun(RerunSubmission(task.task_id, "failed_step"), ANYBODY)
    assert again.results["look"].text == "counted two"
    assert "ann" in again.authors


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


async def test_a_model_is_told_with_which_arguments_its_call_was_sent(house: House, models: ModelServer) -> None:
    house.use_model(models.base_url)
    house.write_registry(tools={"*": {"open_world": False}})
    calls = Calls([("ledger__count", {"label": "one"}), ("ledger__count", {"label": "three"})])
    models.on("Count.", by_turn(calls, Text("done")))
    tools = [{"server": "ledger", "tool": "count", "max_calls": 2}]
    step = {"id": "do", "kind": "agent", "instruction": "Count.", "tools": tools}
    async with house.open() as runtime:
        task, asked = await run_until_asking(runtime, Plan.model_validate({"goal": "g", "steps": [step]}))
        await runtime.tasks.decide(task.task_id, edit(asked, label="two"), ANN)
        task = await until_settled(runtime, task.task_id)
    async with house.open() as runtime:  # what the model is told comes from the journal
        second = asked_in(task)
        assert second.arguments == {"label": "three"}
        named = ApproveCall(call_id=second.call_id, arguments_digest=second.arguments_digest)
        await runtime.tasks.decide(task.task_id, named, BOB)
        end = await until_settled(runtime, task.task_id)
        journal = await runtime.tasks.records(task.task_id, ANYBODY)
        assert find_export_faults(export(await runtime.tasks.load_stored_journal(task.task_id, ANYBODY))) == []
    assert (end.status, house.counted) == (TaskStatus.COMPLETED, ["two", "three"])
    assert [r.event.arguments["label"] for r in journal if isinstance(r.event, ToolCalled)] == ["two", "three"]
    first, other = models.requests[1].results.values()
    assert first.startswith("A person changed the arguments of this call, before it was sent, to these:\n")
    assert '{"label":"two"}' in first
    assert "counted two" in first
    assert "A person changed" not in other
    agent = end.plan_step("do")
    assert isinstance(agent, AgentStep)
    told = [
        item["output"] for item in conversation(end, agent, 1000, 1000) if item.get("type") == "function_call_output"
    ]
    assert told == [first, other]
