"""Spares in a running service: what is compared when a task gets one, and where there is none (G6, G10)."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from agent_runtime.bootstrap import Recover, Runtime, open_runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.status import TaskStatus
from agent_runtime.mcp_servers.spares import SpareTimes
from shifty import ShiftyHouse, list_tools, plan_of, run_plan
from waiting import eventually


@pytest.fixture
def house(tmp_path: Path) -> ShiftyHouse:
    house = ShiftyHouse(tmp_path)
    house.parts = replace(house.parts, spares=SpareTimes(start_after_s=0, start_latest_s=0))
    return house


async def keep_one(runtime: Runtime) -> None:
    """Run a task, and wait until its server has a spare and nothing else."""
    assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED
    await eventually(lambda: runtime.servers.spares == {"ledger": 1} and not runtime.servers.connections["ledger"])


async def test_a_task_that_gets_a_spare_runs_as_any_other(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        await keep_one(runtime)
        assert (await run_plan(runtime, plan_of("count:two", "count:three"))).status is TaskStatus.COMPLETED
    assert house.counted == ["one", "two", "three"]


async def test_a_spare_that_lists_another_definition_than_the_plan_pins_fails_the_task(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        await keep_one(runtime)
        house.list_tools(list_tools(description="counts twice"))
        end = await run_plan(runtime, plan_of("count:two"))
    assert end.error
    assert end.error.code == "definition_changed"
    assert "counts twice" in end.error.message
    assert house.counted == ["one"]


async def test_a_spare_that_lists_other_tools_has_the_catalogue_filled_anew(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        await keep_one(runtime)
        house.list_tools([*list_tools(), {"name": "extra", "inputSchema": {"type": "object"}}])
        assert (await run_plan(runtime, plan_of("count:two"))).status is TaskStatus.COMPLETED
        await eventually(lambda: "ledger/extra" in runtime.registry.tools())


async def test_a_reload_ends_the_spare_of_a_changed_entry(house: ShiftyHouse) -> None:
    async with house.open() as runtime:
        await keep_one(runtime)
        house.write_entry(spares=0)
        await runtime.reloader.reload()
        await eventually(lambda: not runtime.servers.spares)
        assert (await run_plan(runtime, plan_of("count:two"))).status is TaskStatus.COMPLETED
        assert not runtime.servers.spares


@pytest.mark.parametrize("recover", [frozenset[str](), False])
async def test_a_service_that_runs_for_a_command_keeps_no_spare(house: ShiftyHouse, recover: Recover) -> None:
    async with open_runtime(house.settings, Secrets(), recover=recover, parts=house.parts) as runtime:
        await runtime.registry.refresh(20)
        assert (await run_plan(runtime, plan_of("count:one"))).status is TaskStatus.COMPLETED
        await eventually(lambda: not runtime.servers.connections["ledger"])
        assert runtime.servers.spares == Counter()
