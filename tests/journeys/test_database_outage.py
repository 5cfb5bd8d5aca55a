"""A task that runs while its PostgreSQL database is away."""

import asyncio
from dataclasses import replace

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.status import TaskStatus
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.postgres.connecting import read_database
from agent_runtime.storage.postgres.store import PostgresStore
from harness import House, approve_and_stop, ledger_plan, submit_plan, until_settled
from postgres_server import PostgresServer
from waiting import eventually


@pytest.fixture
def house(house: House, postgres_url: str) -> House:
    """A house whose store does not wait for its database, so that each outage is seen."""

    def open_store(
        settings: StorageSettings, *, shared: bool = False, observe: AppendObserver | None = None
    ) -> PostgresStore:
        return PostgresStore(read_database(settings), exclusive=not shared, observe=observe, retry_s=0.1)

    house.use_postgresql(postgres_url)
    house.parts = replace(house.parts, open_store=open_store)
    return house


async def test_a_task_keeps_its_results_during_an_outage_and_repeats_no_call(
    house: House, postgres_server: PostgresServer
) -> None:
    house.write_registry(delay_s=0.5)
    task = await approve_and_stop(house, ledger_plan("a", "b", "c"))
    async with house.open() as runtime:
        await eventually(lambda: house.counted == ["a"])
        await asyncio.to_thread(postgres_server.stop)
        try:
            await eventually(lambda: is_refused(runtime))
        finally:
            await asyncio.to_thread(postgres_server.start)
        ended = await until_settled(runtime, task.task_id)
    assert ended.status is TaskStatus.COMPLETED
    assert house.counted == ["a", "b", "c"]


async def is_refused(runtime: Runtime) -> bool:
    try:
        await submit_plan(runtime, ledger_plan("never"))
    except StoreUnavailableError:
        return True
    return False
