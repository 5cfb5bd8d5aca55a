"""A registry that changes while the service runs: what continues unchanged, what is compared, and what becomes
stricter.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, ApproveCall
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import InvalidPlanError, PlanOutdatedError, RegistryFaultyError
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.registry.reloading import RegistryChanges
from harness import names, submit_plan, until, until_settled
from processes import find_processes
from shifty import ShiftyHouse, plan_of, run_plan, submit_and_approve
from waiting import eventually

CALM = {"effect": "read", "open_world": False, "idempotent": True}
OTHER: dict[str, Any] = {"sandbox": {"mode": "off"}}
"""A change that makes the server another one."""


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    return ShiftyHouse(tmp_path)


def remove_server(house: ShiftyHouse) -> None:
    entries = [entry for entry in house.entries if entry["id"] != "ledger"]
    house.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": entries}), encoding="utf-8")


async def begin_at_the_gate(runtime: Runtime) -> str:
    """Return a task in the middle of a run: its first call waits at the gate, and a second one follows."""
    task = await submit_and_approve(runtime, plan_of("gate:one", "count:two"))
    await until(runtime, task.task_id, lambda now: now.steps["s1"].open_call is not None)
    return task.task_id


async def finish(house: ShiftyHouse, runtime: Runtime, task_id: str) -> Task:
    house.open_gate()
    return await until_settled(runtime, task_id)


def servers_of(house: ShiftyHouse) -> list[int]:
    return find_processes(f"HOUSE={house.folder}")


async def test_a_run_that_holds_its_servers_ends_with_them_and_later_tasks_are_compared(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        waiting = await submit_plan(runtime, plan_of("count:three"))
        task_id = await begin_at_the_gate(runtime)
        house.write_entry(**OTHER)
        assert await runtime.reloader.reload() == RegistryChanges(changed=("ledger",))
        assert (await finish(house, runtime, task_id)).status is TaskStatus.COMPLETED
        with pytest.raises(PlanOutdatedError, match=r'ledger: sandbox\.mode was "auto" and is "off"'):
            await runtime.tasks.decide(waiting.task_id, Approve(digest=waiting.plan_digest), ANYBODY)
    assert house.counted == ["one", "two"]


async def test_a_task_that_goes_on_after_an_answer_is_compared_with_the_registry_of_then(house: ShiftyHouse) -> None:
    house.write_entry(tools={"count": {**CALM, "approval": "call"}, "*": CALM})
    house.open_gate()
    async with house.open() as runtime:
        task = await run_plan(runtime, plan_of("gate:one", "count:two"))
        assert task.status is TaskStatus.NEEDS_ATTENTION
        house.write_entry(tools={"count": {**CALM, "approval": "call"}, "*": CALM}, **OTHER)
        await runtime.reloader.reload()
        (asked,) = [state.asked for state in task.steps.values() if state.asked]
        decision = ApproveCall(call_id=asked.call_id, arguments_digest=asked.arguments_digest)
        await runtime.tasks.decide(task.task_id, decision, ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert house.counted == ["one"]
    assert end.error
    assert end.error.code == "definition_changed"
    assert 'ledger: sandbox.mode was "auto" and is "off".' in end.error.message


async def test_a_run_whose_server_dies_after_a_reload_gets_another_of_the_entry_that_it_began_with(
    house: ShiftyHouse,
) -> None:
    async with house.open() as runtime:
        task = await submit_and_approve(runtime, plan_of("gate:one", "die:two"))
        await until(runtime, task.task_id, lambda now: now.steps["s1"].open_call is not None)
        remove_server(house)
        await runtime.reloader.reload()
        assert (await finish(house, runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one", "two", "two"]


async def test_a_task_that_waits_for_a_server_finds_the_registry_of_then(house: ShiftyHouse) -> None:
    house.wait(in_outage=lambda _: 0.01)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
        house.break_down("217 npm error code ENOTEMPTY LETTER")
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        await until(runtime, task.task_id, lambda now: now.waiting is not None)
        remove_server(house)
        await runtime.reloader.reload()
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert "it is not in the tool registry" in end.error.message
    assert house.counted == []


STRICTER: dict[str, tuple[dict[str, Any], str]] = {
    "denied": ({"deny": [{"tool": "count", "reason": "not now"}]}, "not now"),
    "tool disabled": ({"tools": {"count": {"enabled": False}, "*": CALM}}, "has been disabled"),
    "server disabled": ({"enabled": False}, "has been disabled"),
}


@pytest.mark.parametrize("stricter", STRICTER)
async def test_what_became_stricter_holds_for_the_next_call_of_a_run_under_way(
    house: ShiftyHouse, stricter: str
) -> None:
    entry, said = STRICTER[stricter]
    async with house.open() as runtime:
        task_id = await begin_at_the_gate(runtime)
        house.write_entry(**entry)
        await runtime.reloader.reload()
        end = await finish(house, runtime, task_id)
        assert "tool.denied" in names(await runtime.tasks.records(task_id, ANYBODY))
    assert end.error
    assert end.error.code == "denied"
    assert said in end.error.message
    assert house.counted == ["one"]


async def test_a_call_that_must_be_asked_for_now_is_asked_for_in_a_run_under_way(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task_id = await begin_at_the_gate(runtime)
        house.write_entry(tools={"count": {"approval": "call"}, "*": CALM})
        await runtime.reloader.reload()
        end = await finish(house, runtime, task_id)
        assert end.status is TaskStatus.NEEDS_ATTENTION
        assert end.steps["s2"].asked
    assert house.counted == ["one"]


async def test_what_a_removed_entry_denies_still_holds_for_the_run_that_uses_it(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        task_id = await begin_at_the_gate(runtime)
        house.write_entry(deny=[{"tool": "count"}])
        await runtime.reloader.reload()
        remove_server(house)
        await runtime.reloader.reload()
        end = await finish(house, runtime, task_id)
    assert end.error
    assert end.error.code == "denied"
    assert house.counted == ["one"]


@pytest.mark.parametrize("scope", ["task", "shared"])
async def test_a_removed_server_serves_the_run_that_uses_it_and_nobody_else(house: ShiftyHouse, scope: str) -> None:
    house.write_entry(scope=scope)
    async with house.open() as runtime:
        task_id = await begin_at_the_gate(runtime)
        remove_server(house)
        assert await runtime.reloader.reload() == RegistryChanges(removed=("ledger",))
        assert not [tool for tool in runtime.registry.tools() if tool.startswith("ledger/")]
        assert "ledger" not in [status.id for status in runtime.registry.statuses()]
        with pytest.raises(InvalidPlanError, match="There is no server 'ledger'"):
            await submit_plan(runtime, plan_of("count:three"))
        await eventually(lambda: runtime.servers.connections["ledger"] == 1)  # it may be listed a second time just now
        assert (await finish(house, runtime, task_id)).status is TaskStatus.COMPLETED
        await eventually(lambda: not runtime.servers.connections["ledger"] and not servers_of(house))
    assert house.counted == ["one", "two"]


async def test_a_shared_server_that_nobody_uses_ends_when_its_entry_changes_and_no_other_does(
    house: ShiftyHouse,
) -> None:
    house.write_entry(scope="shared")
    async with house.open() as runtime:
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED
        before = servers_of(house)
        assert await runtime.reloader.reload() == RegistryChanges()
        assert servers_of(house) == before
        rules: dict[str, Any] = {
            "tools": {"count": {"approval": "call", "timeout_s": 5}},
            "deny": [{"tool": "shift"}],
            "name": "other",
        }
        house.write_entry(scope="shared", **rules)
        assert await runtime.reloader.reload() == RegistryChanges(changed=("ledger",))
        await eventually(lambda: runtime.registry.statuses()[-1].connected)
        assert servers_of(house) == before
        house.write_entry(scope="shared", arguments=("other",))
        await runtime.reloader.reload()
        await eventually(lambda: not set(before).intersection(servers_of(house)))
        assert (await run_plan(runtime, plan_of("count:two"))).status is TaskStatus.COMPLETED
        assert servers_of(house)
    assert house.counted == ["one", "two"]


async def test_an_added_server_is_listed_and_can_be_used(house: ShiftyHouse) -> None:
    entries = house.settings.tool_registry.read_text(encoding="utf-8")
    remove_server(house)
    async with house.open() as runtime:
        house.settings.tool_registry.write_text(entries, encoding="utf-8")
        assert await runtime.reloader.reload() == RegistryChanges(added=("ledger",))
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED
        assert "ledger/count" in runtime.registry.tools()
    assert house.counted == ["one"]


async def test_a_changed_policy_is_in_the_next_plan(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        await submit_plan(runtime, plan_of("count:one"))
        house.write_entry(tools={"count": {"effect": "destructive"}})
        await runtime.reloader.reload()
        task = await submit_plan(runtime, plan_of("count:two"))
        assert task.contract
        assert task.contract.policy["ledger/count"].effect == "destructive"


FAULTS = {
    "field": ("tool_registry: [{id: a, type: local_stdio, config: {command: x, args: -y}}]", "entry 'a': config.args"),
    "key": ("servers: []\ntool_registry: []", "servers"),
    "shape": ("tool_registry: 5", "tool_registry"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_file_with_faults_changes_nothing_and_each_fault_is_named(house: ShiftyHouse, fault: str) -> None:
    text, field = FAULTS[fault]
    async with house.open() as runtime:
        before = runtime.registry.statuses()
        house.settings.tool_registry.write_text(text, encoding="utf-8")
        with pytest.raises(RegistryFaultyError, match="still in force") as refused:
            await runtime.reloader.reload()
        assert [one.field for one in refused.value.faults] == [field]
        assert str(house.settings.tool_registry) in str(refused.value)
        assert [status.id for status in runtime.registry.statuses()] == [status.id for status in before]
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("text", [None, "tool_registry: [", "\xff"])
async def test_a_file_that_cannot_be_read_changes_nothing(house: ShiftyHouse, text: str | None) -> None:
    async with house.open() as runtime:
        house.settings.tool_registry.unlink()
        if text is not None:
            house.settings.tool_registry.write_bytes(text.encode("latin-1"))
        with pytest.raises(RegistryFaultyError, match=str(house.settings.tool_registry)):
            await runtime.reloader.reload()
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED


async def test_a_secret_of_the_new_file_that_is_missing_costs_its_entry_alone(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        entries = [*house.entries, _telling_entry(house, {"TOKEN": "${env:NOWHERE_TO_BE_FOUND}"})]
        house.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": entries}), encoding="utf-8")
        assert await runtime.reloader.reload() == RegistryChanges(added=("telling",))
        await runtime.registry.ready(["telling"], 10)
        (telling,) = [status for status in runtime.registry.statuses() if status.id == "telling"]
        assert telling.detail == "The environment variable NOWHERE_TO_BE_FOUND is not set."
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED


def _telling_entry(house: ShiftyHouse, env: dict[str, str]) -> dict[str, Any]:
    """Return an entry whose server answers with its environment."""
    server = Path(__file__).parents[1] / "servers" / "telling_server.py"
    command = house.entries[-1]["config"]["command"]
    config = {"command": command, "args": [str(server), str(house.folder / "told.txt")], "env": env}
    return {"id": "telling", "type": "local_stdio", "config": config, "tools": {"*": CALM}}


async def test_the_secrets_of_the_new_file_are_redacted(house: ShiftyHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWLY_NAMED", "sk-newly-named-by-the-file")
    env = {"A": "${env:NEWLY_NAMED}", "API_KEY": "sk-written-out-in-the-file"}
    async with house.open() as runtime:
        entries = [*house.entries, _telling_entry(house, env)]
        house.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": entries}), encoding="utf-8")
        await runtime.reloader.reload()
        task = await run_plan(runtime, plan_of("telling.tell"))
        assert task.status is TaskStatus.COMPLETED
        (call,) = [state.call for state in task.steps.values()]
        assert call
        assert call.result
        shown = call.result.model_dump_json() + str(runtime.registry.tools())
    told = (house.folder / "told.txt").read_text(encoding="utf-8")
    for secret in ("sk-newly-named-by-the-file", "sk-written-out-in-the-file"):
        assert secret in told
        assert secret not in shown
    assert "[redacted]" in shown


async def test_a_plan_that_waits_for_a_server_waits_for_the_entry_that_takes_its_place(house: ShiftyHouse) -> None:
    house.write_entry(hang="initialize")
    async with house.open() as runtime, asyncio.TaskGroup() as group:
        submitted = group.create_task(submit_plan(runtime, plan_of("count:one")))
        await house.wait_for_hangs(1)
        house.write_entry(arguments=("other",))
        await runtime.reloader.reload()
        async with asyncio.timeout(house.settings.limits.server_start_s / 2):  # the hanging one is given longer
            task = await submitted
        assert task.contract
        assert list(task.contract.pins) == ["ledger/count"]


@pytest.mark.slow
async def test_a_watched_file_is_read_once_it_has_changed_and_a_fault_in_it_changes_nothing(house: ShiftyHouse) -> None:
    house.settings = house.settings.model_copy(update={"watch_registry": True})
    good = house.settings.tool_registry.read_text(encoding="utf-8")
    async with house.open() as runtime:

        def is_listed() -> bool:
            return "ledger" in [status.id for status in runtime.registry.statuses()]

        house.settings.tool_registry.write_text("tool_registry: 5", encoding="utf-8")
        remove_server(house)
        await eventually(lambda: not is_listed())
        house.settings.tool_registry.write_text(good, encoding="utf-8")
        await eventually(is_listed)
