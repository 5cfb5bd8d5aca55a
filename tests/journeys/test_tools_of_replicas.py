"""A change of the tools of a server at one replica reaches the catalogue of all."""

import asyncio
from pathlib import Path

import pytest

from agent_runtime.bootstrap import open_runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.status import TaskStatus
from shifty import ShiftyHouse, list_tools, plan_of, run_plan
from waiting import eventually


@pytest.mark.slow
async def test_a_change_of_tools_that_a_server_tells_one_worker_shows_at_every_replica(
    tmp_path: Path, postgres_url: str
) -> None:
    house = ShiftyHouse(tmp_path)
    house.write_entry(scope="shared")  # only a shared session outlasts the run, and is listened to
    house.use_postgresql(postgres_url)
    house.list_tools([*list_tools(), {"name": "extra", "inputSchema": {"type": "object"}}], "next.json")
    door = house.settings.model_copy(update={"role": "api", "data_dir": tmp_path / "door"})
    other = house.settings.model_copy(update={"data_dir": tmp_path / "other"})
    async with (
        asyncio.timeout(50),
        house.open() as worker,
        open_runtime(door, Secrets(), parts=house.parts) as api,
    ):
        await eventually(lambda: "ledger/shift" in api.registry.tools())
        assert "ledger/extra" not in api.registry.tools()
        assert (await run_plan(api, plan_of("shift:first"))).status is TaskStatus.COMPLETED
        await eventually(lambda: "ledger/extra" in api.registry.tools())
        await eventually(lambda: "ledger/extra" in worker.registry.tools())
        async with open_runtime(other, Secrets(), parts=house.parts) as late:
            await eventually(lambda: "ledger/extra" in late.registry.tools())
    assert house.counted == ["first"]
