"""G2, G9, G11 over HTTP+SSE, the transport of 2024-11-05: outcomes, and the bounds of what a server sends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import OutcomeUnknownError, ServerUnavailableError
from old_transport import TARGETS, run_old_server
from pools import Lag, Place, call, remote

LIMITS = {"server_line_bytes": 200_000, "server_start_s": 2}


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    with run_old_server() as server:
        yield server


@asynccontextmanager
async def open_lease(server: tuple[int, list[str]], folder: Path, path: str = "mcp") -> AsyncIterator[Any]:
    entry = remote(f"http://127.0.0.1:{server[0]}/{path}")
    async with asyncio.timeout(30), Place(folder).pool(**LIMITS) as pool, pool.lease([entry]) as lease:
        yield lease


async def test_a_server_of_the_old_transport_is_served(server: tuple[int, list[str]], tmp_path: Path) -> None:
    async with open_lease(server, tmp_path) as lease:
        assert "good" in await lease.definitions("remote")
        assert (await call(lease, "good", server="remote", timeout_s=5)).text == "done"


async def test_errors_and_refusals_are_definite(server: tuple[int, list[str]], tmp_path: Path) -> None:
    async with open_lease(server, tmp_path) as lease:
        result = await call(lease, "error", server="remote", timeout_s=5)
        assert (result.is_error, result.text) == (True, "no money")
        assert "HTTP 403" in (await call(lease, "refused", server="remote", timeout_s=5)).text


@pytest.mark.parametrize("tool", ["end", "large"])
async def test_a_call_whose_stream_ends_or_is_over_its_bound_has_an_unknown_outcome_at_once(
    server: tuple[int, list[str]], tmp_path: Path, tool: str
) -> None:
    async with open_lease(server, tmp_path) as lease:
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknownError):
                await call(lease, tool, server="remote", timeout_s=10)
    async with open_lease(server, tmp_path) as lease:
        assert (await call(lease, "good", server="remote", timeout_s=5)).text == "done"
    assert server[1].count("tools/call") == 2


async def test_an_answer_that_is_nested_too_deeply_ends_its_call_and_stalls_nobody(
    server: tuple[int, list[str]], tmp_path: Path
) -> None:
    lag = Lag()
    async with asyncio.TaskGroup() as group, open_lease(server, tmp_path) as lease:
        watch = group.create_task(lag.measure())
        with pytest.raises(OutcomeUnknownError):
            await call(lease, "nested", server="remote", timeout_s=2)
        watch.cancel()
    assert lag.worst_s < 0.5


@pytest.mark.parametrize("path", ["silent", "long"])
async def test_a_stream_without_an_address_or_an_end_of_its_line_is_given_up(
    server: tuple[int, list[str]], tmp_path: Path, path: str
) -> None:
    lag = Lag()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(lag.measure())
        with pytest.raises(ServerUnavailableError):
            async with asyncio.timeout(10), open_lease(server, tmp_path, path):
                pass
        watch.cancel()
    assert lag.worst_s < 0.5


@pytest.mark.slow
async def test_a_stream_that_babbles_stalls_nobody_and_ends_with_its_lease(
    server: tuple[int, list[str]], tmp_path: Path
) -> None:
    lag = Lag()
    async with asyncio.TaskGroup() as group:
        async with open_lease(server, tmp_path) as lease:
            watch = group.create_task(lag.measure())
            with pytest.raises(OutcomeUnknownError):
                await call(lease, "babble", server="remote", timeout_s=2)
        watch.cancel()
    assert lag.worst_s < 0.5


@pytest.mark.parametrize("tool", ["late", "endless"])
async def test_an_answer_counts_though_the_server_does_not_end_the_post(
    server: tuple[int, list[str]], tmp_path: Path, tool: str
) -> None:
    async with open_lease(server, tmp_path) as lease, asyncio.timeout(5):
        assert (await call(lease, tool, server="remote", timeout_s=10)).text == "done"


@pytest.mark.parametrize("path", TARGETS)
async def test_messages_are_sent_to_no_other_origin(server: tuple[int, list[str]], tmp_path: Path, path: str) -> None:
    with pytest.raises(ServerUnavailableError, match="another origin"):
        async with open_lease(server, tmp_path, path.removeprefix("/")):
            pass
    assert server[1] == []
