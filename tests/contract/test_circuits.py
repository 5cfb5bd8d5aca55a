"""A server whose starts fail again and again is left alone for a while, and then tried with one start."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import StdioServer, ToolServer
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.pool import ServerPool
from hostile_http import hostile_http
from pools import Place, remote
from waiting import eventually

FAILURES = 5


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
async def pool(place: Place) -> AsyncIterator[ServerPool]:
    async with place.pool(circuit_s=0.2) as pool:
        yield pool


def make_dying_server(place: Place) -> StdioServer:
    """Return the entry of a server that notes each start and ends at once, unless the file `well` exists."""
    script = f"echo start >> {place.notes_file}; test -e well && exec sleep 60; echo no cache >&2; exit 7"
    config = {"command": "sh", "args": ["-c", script]}
    return StdioServer.model_validate({"id": "dying", "type": "local_stdio", "config": config})


def has_begun(place: Place, before: int) -> bool:
    return len(place.notes) > before


async def fail(pool: ServerPool, server: ToolServer) -> ServerUnavailableError:
    with pytest.raises(ServerUnavailableError) as error:
        await pool.discover(server)
    return error.value


async def test_after_five_failed_starts_no_process_is_started_for_a_while(place: Place) -> None:
    server = make_dying_server(place)
    async with place.pool() as pool:
        assert pool.circuits == {}
        for _ in range(FAILURES):
            assert (await fail(pool, server)).exit_mark == "7: no cache"
        refused = await fail(pool, server)
        assert pool.circuits == {"dying": "open"}
    assert "it is tried again in 30 s" in refused.reason
    assert "exited with code 7" in refused.reason
    assert (refused.may_pass, refused.exit_mark) == (True, "7: no cache")
    assert len(place.notes) == FAILURES


async def test_then_one_start_tries_it_and_its_success_closes_the_circuit(pool: ServerPool) -> None:
    with hostile_http() as state:
        url, state.outage = state.url("good"), 503
        for _ in range(FAILURES):
            await fail(pool, remote(url))
        await eventually(lambda: pool.circuits == {"remote": "open"})
        state.outage = None

        async def is_back() -> bool:
            try:
                return bool(await pool.discover(remote(url)))
            except ServerUnavailableError:
                return False

        await eventually(is_back)
        await eventually(lambda: pool.circuits == {"remote": "closed"})


async def test_a_server_that_refuses_was_reached(pool: ServerPool) -> None:
    with hostile_http() as state:
        state.outage = 401
        for _ in range(FAILURES + 1):
            assert "401" in (await fail(pool, remote(state.url("good")))).reason
    assert pool.circuits == {"remote": "closed"}


@pytest.mark.slow
async def test_a_start_that_nobody_waits_for_any_more_counts_for_nothing(place: Place, pool: ServerPool) -> None:
    (place.folder / "well").touch()
    for count in range(FAILURES + 1):
        async with asyncio.TaskGroup() as group:
            start = group.create_task(pool.discover(make_dying_server(place)))
            await eventually(partial(has_begun, place, count))
            start.cancel()
    assert pool.circuits == {"dying": "closed"}


async def test_a_reload_right_after_a_start_ends_that_server_and_no_other(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(20):
        connection = await pool.connect(place.entry(scope="shared"))
        pool.replace([place.entry(server_id="other")], _make_no_builtin, OwnFiles())
        with pytest.raises(ServerUnavailableError):
            await connection.ready()
        assert await pool.discover(place.entry(server_id="other"))


def _make_no_builtin(_: object) -> NoReturn:
    raise AssertionError("no entry of these tests is one")
