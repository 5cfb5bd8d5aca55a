"""Spare processes of MCP servers: when one is kept, that it serves one task, and that none is left over (G6, G10)."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import OutcomeUnknownError, ServerUnavailableError
from agent_runtime.domain.tools import StdioServer
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.spares import SpareTimes
from pools import Place, all_gone, call, zombies
from processes import find_processes
from waiting import eventually

HELD = SpareTimes(start_after_s=0, start_latest_s=0, check_s=600, first_retry_s=600)
"""A spare starts at once; it is not looked at again, and not replaced after a failure."""

CHECKED = replace(HELD, check_s=0.05)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def keep_spares(place: Place, times: SpareTimes) -> AbstractAsyncContextManager[ServerPool]:
    place.spares = times
    return place.pool()


def entry_of(place: Place, mode: str = "polite", server_id: str = "hostile", **more: Any) -> StdioServer:
    """An entry whose server is one process, without those of a sandbox."""
    return place.entry(mode, server_id, **{"sandbox": {"mode": "off"}, **more})


async def use(pool: ServerPool, place: Place, entry: StdioServer, label: str = "hello") -> list[int]:
    """Use the server in one lease, and return the processes that were there before."""
    before = place.find_processes()
    async with pool.lease([entry]) as lease:
        assert "echo" in await lease.definitions(entry.id)
        assert (await call(lease, "echo", label, server=entry.id)).text == label
    return before


async def find_spare(pool: ServerPool, place: Place) -> int:
    """Wait until there is a spare and nothing else, and return the id of its process."""

    def find_one() -> list[int]:
        found = place.find_processes()
        return found if len(found) == sum(pool.spares.values()) == 1 and not pool.connections else []

    (spare,) = await eventually(find_one)
    return int(spare)


def replace_entries(pool: ServerPool, *entries: StdioServer) -> None:
    def make_no_builtin(_: object) -> Any:
        raise AssertionError("there is none")

    pool.replace(entries, make_no_builtin, OwnFiles())


# One task each


async def test_a_spare_serves_the_next_task_and_dies_with_it(place: Place) -> None:
    entry = entry_of(place)
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        assert await use(pool, place, entry) == []
        spare = await find_spare(pool, place)
        assert (pool.connections, pool.spares) == ({}, {"hostile": 1})
        async with pool.lease([entry]) as lease:
            assert (await call(lease, "echo", "warm")).text == "warm"
            await eventually(lambda: pool.spares == {"hostile": 1})
            assert pool.connections == {"hostile": 1}
            assert await eventually(lambda: len(place.find_processes()) == 2 and spare in place.find_processes())
        assert spare not in place.find_processes()
        assert await find_spare(pool, place) != spare
    await all_gone(place)


async def test_two_tasks_at_once_do_not_share_a_spare(place: Place) -> None:
    entry = entry_of(place)
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        await use(pool, place, entry)
        spare = await find_spare(pool, place)
        async with pool.lease([entry]), pool.lease([entry]):
            assert pool.connections == {"hostile": 2}
            await eventually(lambda: len(place.find_processes()) == 3 and spare in place.find_processes())
        await find_spare(pool, place)


@pytest.mark.parametrize("sandbox", ["auto", "off"])
async def test_a_spare_starts_in_the_folder_and_the_environment_of_its_entry(place: Place, sandbox: str) -> None:
    entry = place.entry(sandbox={"mode": sandbox})
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        found = []
        for _ in range(2):
            async with pool.lease([entry]) as lease:
                found.append((await call(lease, "environment")).output)
            await eventually(lambda: pool.spares == {"hostile": 1})
        assert found[0] == found[1]
        assert found[0]["NOTES"] == str(place.notes_file)
    await all_gone(place)


# When there is one


async def test_only_servers_of_scope_task_that_a_task_has_used_have_spares(place: Place) -> None:
    asked, shared = entry_of(place, server_id="asked"), entry_of(place, server_id="shared", scope="shared")
    without, kept = entry_of(place, server_id="without", spares=0), entry_of(place, server_id="kept")
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        await pool.discover(asked)
        for entry in (shared, without, kept):
            await use(pool, place, entry)
        await eventually(lambda: pool.spares == {"kept": 1})
        await eventually(lambda: pool.connections == {"shared": 1})
        assert len(place.find_processes()) == 2


@pytest.mark.parametrize("latest_s", [60, 0.1])
async def test_the_next_spare_leaves_the_processor_to_the_first_calls_of_a_task_but_not_for_ever(
    place: Place, latest_s: float
) -> None:
    busy, calm = entry_of(place, server_id="busy"), entry_of(place, server_id="calm")
    cancel = asyncio.Event()
    place.spares = replace(HELD, start_after_s=0.05, start_latest_s=latest_s)
    async with place.pool() as pool, asyncio.timeout(20), pool.lease([busy, calm]) as lease:

        async def hang() -> None:
            with pytest.raises(OutcomeUnknownError):
                await call(lease, "hang", server="busy", cancel=cancel)

        async with asyncio.TaskGroup() as group:
            group.create_task(hang())
            await call(lease, "echo", server="calm")
            await eventually(lambda: pool.spares["calm"] == 1 and len(place.find_processes()) >= 3)
            if latest_s > 1:
                assert pool.spares == {"calm": 1}
                cancel.set()
            await eventually(lambda: pool.spares == {"busy": 1, "calm": 1})
            cancel.set()


async def test_a_pool_without_times_keeps_no_spare(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        await use(pool, place, entry_of(place))
        assert not pool.spares
        await all_gone(place)


async def test_a_server_that_failed_its_task_at_the_start_gets_no_spare(place: Place) -> None:
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        with pytest.raises(ServerUnavailableError):
            async with pool.lease([entry_of(place), entry_of(place, "exit", "bad")]):
                pytest.fail("entered without one of the servers")
        await use(pool, place, entry_of(place, server_id="kept"))
        await eventually(lambda: pool.spares == {"kept": 1})


async def test_a_spare_ends_once_no_task_has_used_its_server_for_a_while(place: Place) -> None:
    async with keep_spares(place, replace(CHECKED, used_within_s=1.0)) as pool, asyncio.timeout(20):
        await use(pool, place, entry_of(place))
        await find_spare(pool, place)
        await all_gone_eventually(place)
        await eventually(lambda: not pool.spares)


async def all_gone_eventually(place: Place) -> None:
    await eventually(lambda: not place.find_processes(), within_s=8)


async def test_a_spare_that_is_too_old_is_replaced_by_a_new_one(place: Place) -> None:
    async with keep_spares(place, replace(CHECKED, longest_s=0.5)) as pool, asyncio.timeout(20):
        await use(pool, place, entry_of(place))
        spare = await find_spare(pool, place)
        seen = [await eventually(lambda: place.find_processes() not in ([], [spare]) and place.find_processes())]
        assert all(len(found) == 1 for found in seen), "never two"


# What no longer holds


async def test_a_spare_ends_when_its_entry_changes_or_is_removed_and_no_other_does(place: Place) -> None:
    entry, other = entry_of(place), entry_of(place, server_id="other")
    changed = entry.model_copy(update={"client_session_timeout_seconds": 7.0})
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        for one in (entry, other):
            await use(pool, place, one)
        await eventually(lambda: pool.spares == {"hostile": 1, "other": 1})
        replace_entries(pool, entry, other)
        assert pool.spares == {"hostile": 1, "other": 1}
        replace_entries(pool, changed, other)
        await eventually(lambda: pool.spares == {"other": 1})
        # A run that goes on with the entry of before gets a process of its own, and leaves no spare.
        await use(pool, place, entry)
        await use(pool, place, changed)
        await eventually(lambda: pool.spares == {"hostile": 1, "other": 1})
        replace_entries(pool, changed)
        await eventually(lambda: pool.spares == {"hostile": 1})
    await all_gone(place)


def write_secret(place: Place, secret: str) -> StdioServer:
    """Write a secret to the file that the returned entry names."""
    (place.folder / "secret").write_text(secret, encoding="utf-8")
    entry = entry_of(place)
    env = {**entry.config.env, "KEY": f"${{file:{place.folder / 'secret'}}}"}
    return entry.model_copy(update={"config": entry.config.model_copy(update={"env": env})})


async def test_a_spare_with_an_outdated_secret_is_replaced(place: Place) -> None:
    entry = write_secret(place, f"first-of-{place.folder}")
    async with keep_spares(place, CHECKED) as pool, asyncio.timeout(20):
        await use(pool, place, entry)
        await eventually(lambda: find_processes(f"KEY=first-of-{place.folder}"))
        write_secret(place, f"second-of-{place.folder}")
        await eventually(lambda: find_processes(f"KEY=second-of-{place.folder}"))
        assert not find_processes(f"KEY=first-of-{place.folder}")


async def test_a_task_never_gets_a_spare_with_an_outdated_secret(place: Place) -> None:
    entry = write_secret(place, f"first-of-{place.folder}")
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        await use(pool, place, entry)
        spare = await find_spare(pool, place)
        write_secret(place, f"second-of-{place.folder}")
        async with pool.lease([entry]) as lease:
            assert (await call(lease, "echo", "safe")).text == "safe"
            assert spare not in find_processes(f"KEY=second-of-{place.folder}")
            await eventually(lambda: not find_processes(f"KEY=first-of-{place.folder}"))


# Failures


@pytest.mark.parametrize("moment", ["before it is taken", "after it was taken"])
async def test_a_spare_that_crashed_costs_its_task_nothing(place: Place, moment: str) -> None:
    entry = entry_of(place)
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        await use(pool, place, entry)
        spare = await find_spare(pool, place)
        if moment == "before it is taken":
            os.kill(spare, signal.SIGKILL)
        async with pool.lease([entry]) as lease:
            if moment == "after it was taken":
                os.kill(spare, signal.SIGKILL)
            assert "echo" in await lease.definitions("hostile")
            assert (await call(lease, "echo", "on")).text == "on"
            assert pool.connections == {"hostile": 1}
    await all_gone(place)
    assert not zombies()


async def test_a_spare_that_died_is_not_replaced_before_its_pause_is_over(place: Place) -> None:
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        await use(pool, place, entry_of(place))
        os.kill(await find_spare(pool, place), signal.SIGKILL)
        await eventually(lambda: not pool.spares)
        await use(pool, place, entry_of(place, server_id="other"))
        await eventually(lambda: pool.spares == {"other": 1})


async def test_a_spare_that_died_is_replaced_after_its_pause(place: Place) -> None:
    async with keep_spares(place, replace(HELD, first_retry_s=0.05)) as pool, asyncio.timeout(20):
        await use(pool, place, entry_of(place))
        spare = await find_spare(pool, place)
        os.kill(spare, signal.SIGKILL)
        await eventually(lambda: place.find_processes() not in ([], [spare]) and pool.spares == {"hostile": 1})


async def use_then_become(pool: ServerPool, place: Place, mode: str) -> StdioServer:
    """Use a server whose next processes are of this mode, and return its entry."""
    file, entry = place.folder / "mode", entry_of(place)
    file.write_text("polite", encoding="utf-8")
    args = ("-c", f'exec "{sys.executable}" -S -E "$0" "$(cat "{file}")"', entry.config.args[2])
    entry = entry.model_copy(update={"config": entry.config.model_copy(update={"command": "/bin/sh", "args": args})})
    async with pool.lease([entry]):
        file.write_text(mode, encoding="utf-8")
    return entry


async def test_a_spare_that_cannot_start_ends_and_the_task_under_way_does_not(place: Place) -> None:
    async with keep_spares(place, HELD) as pool, asyncio.timeout(20):
        entry = await use_then_become(pool, place, "exit")
        await eventually(lambda: pool.spares)
        await eventually(lambda: not pool.spares)
        (place.folder / "mode").write_text("polite", encoding="utf-8")
        await use(pool, place, entry)
    await all_gone(place)


# Leaving


@pytest.mark.parametrize("mode", ["polite", pytest.param("stubborn", marks=pytest.mark.slow), "mute"])
async def test_leaving_the_pool_ends_its_spares_within_the_time_of_all_servers(place: Place, mode: str) -> None:
    async with asyncio.timeout(20):
        async with keep_spares(place, HELD) as pool:
            await use(pool, place, place.entry(server_id="kept"))
            await use_then_become(pool, place, mode)
            await eventually(lambda: pool.spares == {"kept": 1, "hostile": 1})
            began = time.monotonic()
        assert time.monotonic() - began < 7
        await all_gone(place)
    assert not zombies()


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "off"])
async def test_a_task_that_is_cancelled_while_it_gets_a_spare_leaves_nothing(place: Place, sandbox: str) -> None:
    entry = place.entry(sandbox={"mode": sandbox})

    async def get(pool: ServerPool) -> None:
        async with pool.lease([entry]) as lease:
            await lease.definitions("hostile")
            await call(lease, "hang")

    async with keep_spares(place, HELD) as pool, asyncio.timeout(30):
        await use(pool, place, entry)
        for milliseconds in (0, 1, 2, 3, 5, 8, 12, 18, 25, 50):
            await eventually(lambda: pool.spares == {"hostile": 1} and not pool.connections)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(get(pool))
                await asyncio.wait([task], timeout=milliseconds / 1000)
                task.cancel()
            assert task.cancelled()
        await eventually(lambda: pool.spares == {"hostile": 1} and not pool.connections)
        replace_entries(pool)
        await all_gone_eventually(place)
    assert not zombies()
