"""G2, G9 at the port `ToolServers`: HTTP servers that redirect, hang up or answer for others, on a real socket."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from agent_runtime.config import LogSettings
from agent_runtime.domain.errors import OutcomeUnknownError, ServerUnavailableError
from agent_runtime.domain.tools import HttpServer, StoredResult
from agent_runtime.services.ports import Lease
from agent_runtime.telemetry import configure_logging
from agent_runtime.text.redaction import Redactor
from hostile_http import HostileHttp, hostile_http
from pools import Lag, Place
from waiting import eventually


@pytest.fixture
def server() -> Iterator[HostileHttp]:
    with hostile_http() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def entry(server: HostileHttp, mode: str) -> HttpServer:
    config = {"base_url": server.url(mode), "headers": {"Authorization": "Bearer sk-entry"}}
    return HttpServer.model_validate({"id": "remote", "type": "remote_http", "config": config})


@asynccontextmanager
async def open_lease(place: Place, server: HostileHttp, mode: str) -> AsyncIterator[Lease]:
    async with place.pool() as pool, asyncio.timeout(20), pool.lease([entry(server, mode)]) as lease:
        assert list(await lease.definitions("remote")) == ["pay"]
        yield lease


async def pay(lease: Lease, timeout_s: float = 5) -> StoredResult:
    return await lease.call("remote", "pay", {}, timeout_s=timeout_s, cancel=asyncio.Event())


@pytest.mark.parametrize("status", [307, 308])
async def test_a_handshake_may_be_sent_on_once_and_the_session_stays_there(
    place: Place, server: HostileHttp, status: int
) -> None:
    async with open_lease(place, server, f"moved-{status}") as lease:
        assert (await pay(lease)).text == "paid"
    moved = f"/moved-{status}/mcp"
    assert server.find_paths("initialize") == [moved, f"{moved}/"]
    assert {one.path for one in server.seen if one.asked != "initialize"} == {f"{moved}/"}


@pytest.mark.parametrize(
    "mode", ["moved-301", "moved-302", "moved-303", "forth-307", "away-307", "away-308", "userinfo-307"]
)
async def test_a_handshake_is_sent_nowhere_else(place: Place, server: HostileHttp, mode: str) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(
            ServerUnavailableError, match=r"unavailable: it redirects to http://\S+, which is not"
        ) as refused:
            await pool.discover(entry(server, mode))
    assert "me:you" not in refused.value.reason
    assert not any(one.path == "/good/mcp" or one.path.endswith("/again/again") for one in server.seen)


async def test_a_listing_is_not_sent_on(place: Place, server: HostileHttp) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match="redirects to"):
            await pool.discover(entry(server, "list-307"))
    assert server.find_paths("tools/list") == ["/list-307/mcp"]


@pytest.mark.parametrize("where", ["call", "self", "cross"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_call_that_is_redirected_was_sent_once_and_its_outcome_is_unknown(
    place: Place, server: HostileHttp, where: str, status: int
) -> None:
    async with open_lease(place, server, f"{where}-{status}") as lease:
        with pytest.raises(OutcomeUnknownError, match="redirects to"):
            await pay(lease)
    assert server.find_paths("tools/call") == [f"/{where}-{status}/mcp"]


@pytest.mark.parametrize("kind", ["json", "events", "status"])
@pytest.mark.parametrize("code", [32000, 32001, 32600, 32603, 32700, 1])
async def test_an_error_with_the_id_of_the_call_is_a_definite_result_whatever_its_code(
    place: Place, server: HostileHttp, kind: str, code: int
) -> None:
    async with open_lease(place, server, f"{kind}_{code}") as lease:
        result = await pay(lease)
    assert (result.is_error, result.text) == (True, "no money")


@pytest.mark.parametrize("kind", ["nobody", "stranger", "ended", "login"])
async def test_an_error_that_the_server_does_not_give_for_the_call_leaves_its_outcome_unknown(
    place: Place, server: HostileHttp, kind: str
) -> None:
    async with open_lease(place, server, kind) as lease:
        with pytest.raises(OutcomeUnknownError):
            await pay(lease)


@pytest.mark.slow
async def test_a_stream_that_is_closed_at_once_is_not_opened_again_and_again(place: Place, server: HostileHttp) -> None:
    async with open_lease(place, server, "closing") as lease:
        await eventually(lambda: server.count_streams() == 3)
        for _ in range(50):
            await pay(lease)
        assert server.count_streams() == 3


async def test_a_call_whose_stream_is_closed_at_once_is_asked_after_once_a_second(
    place: Place, server: HostileHttp
) -> None:
    async with open_lease(place, server, "closing-call") as lease:
        await eventually(lambda: server.count_streams() == 3)
        with pytest.raises(OutcomeUnknownError):
            await pay(lease, timeout_s=1.5)
        assert server.count_streams() <= 3 + 3
    assert len(server.find_paths("tools/call")) == 1


# Answers that are too long


@pytest.mark.parametrize("mode", ["nested", "nested-events"])
async def test_an_answer_with_countless_arrays_stalls_nobody_and_leaves_the_outcome_unknown(
    place: Place, server: HostileHttp, mode: str
) -> None:
    lag = Lag()
    async with asyncio.TaskGroup() as group, open_lease(place, server, mode) as lease:
        watch = group.create_task(lag.measure())
        with pytest.raises(OutcomeUnknownError):
            await pay(lease)
        watch.cancel()
    assert lag.worst_s < 1  # G9 promises answers within 1 s


@pytest.mark.slow
async def test_what_is_counted_of_an_event_is_not_counted_of_the_next(place: Place, server: HostileHttp) -> None:
    async with open_lease(place, server, "many-events") as lease:
        assert (await pay(lease, timeout_s=20)).text == ""


async def test_an_answer_in_chunks_of_one_byte_arrives_and_stalls_nobody(place: Place, server: HostileHttp) -> None:
    lag = Lag()
    async with asyncio.TaskGroup() as group, open_lease(place, server, "trickling") as lease:
        watch = group.create_task(lag.measure())
        assert (await pay(lease, timeout_s=20)).text == "x" * 20_000
        watch.cancel()
    assert lag.worst_s < 0.2


async def test_a_server_that_asks_without_end_and_takes_no_answer_fills_no_memory(
    place: Place, server: HostileHttp
) -> None:
    async with open_lease(place, server, "asking"):
        await asyncio.to_thread(server.streamed.wait, 20)
        await eventually(lambda: server.find_paths(""))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) < 200


async def test_a_server_fills_no_log_with_what_it_gets_wrong(place: Place, server: HostileHttp) -> None:
    root = logging.getLogger()
    before, log = (root.handlers, root.level), io.StringIO()
    configure_logging(LogSettings(format="json"), Redactor(), log)
    try:
        async with open_lease(place, server, "babbling") as lease:
            await asyncio.to_thread(server.streamed.wait, 20)
            assert (await pay(lease)).text == "paid"
    finally:
        root.handlers, root.level = before
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
    assert log.getvalue().count("\n") < 10


async def test_only_the_first_cookies_of_a_server_are_kept(place: Place, server: HostileHttp) -> None:
    async with open_lease(place, server, "baking") as lease:
        for _ in range(3):
            cookies = (await pay(lease)).text.split("; ")
    assert len(cookies) == 20
    assert "seen=1" in cookies
