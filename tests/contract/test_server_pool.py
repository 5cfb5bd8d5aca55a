"""G2, G10 and G12 at the port `ToolServers`: leases, shared servers, cancellation, and that nothing is left over."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from agent_runtime.config import LimitSettings, Secrets
from agent_runtime.domain.errors import CallNotSentError, OutcomeUnknownError, ServerUnavailableError
from agent_runtime.domain.tools import BuiltinServer, StdioServer, StoredResult
from agent_runtime.domain.values import JsonObject
from agent_runtime.mcp_servers import in_process
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.services.ports import Lease
from pools import KEY, Place, all_gone, call, descriptors, remote, zombies
from serving import free_port
from waiting import eventually

HTTP_SERVER = Path(__file__).parent.parent / "servers" / "waiting_http_server.py"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# What is started, and with what


async def test_a_command_that_does_not_exist_is_named_with_what_to_do(place: Place) -> None:
    entry = StdioServer.model_validate(
        {"id": "gone", "type": "local_stdio", "config": {"command": "no-such-command-here"}}
    )
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match=r"'no-such-command-here' was not found.*Install it"):
            await pool.discover(entry)


async def test_a_whole_command_line_in_place_of_a_command_is_told_how_to_be_written(place: Place) -> None:
    config = {"command": 'npx -y "some server@1.2.3"', "args": ["./data"]}
    entry = StdioServer.model_validate({"id": "line", "type": "local_stdio", "config": config})
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError) as refused:
            await pool.discover(entry)
    assert 'write command: "npx" and args: ["-y", "some server@1.2.3", "./data"]. ' in refused.value.reason


async def test_a_working_directory_that_does_not_exist_is_named(place: Place) -> None:
    config = {"command": sys.executable, "cwd": "no/such/folder"}
    entry = StdioServer.model_validate({"id": "lost", "type": "local_stdio", "config": config})
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match=r"no/such/folder' does not exist; correct config\.cwd"):
            await pool.discover(entry)


@pytest.mark.parametrize("kind", ["stdio", "http"])
async def test_a_secret_that_is_missing_is_named(place: Place, kind: str) -> None:
    place.environ = {}
    entry = place.entry() if kind == "stdio" else remote("http://127.0.0.1:9/${env:KEY_OF_THE_OPERATOR}")
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match="environment variable KEY_OF_THE_OPERATOR is not set"):
            await pool.discover(entry)


async def test_only_what_is_declared_and_a_short_safe_list_reaches_a_server(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_IN_THE_SERVICE", "sk-planted")
    async with place.pool() as pool, asyncio.timeout(10), pool.lease([place.entry()]) as lease:
        given = (await call(lease, "environment")).output
    usual = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE", "PWD", "npm_config_yes"}
    assert set(given) <= {"NOTES", "KEY", *usual}
    assert given["NOTES"] == str(place.notes_file)
    assert KEY not in str(given)


async def test_what_all_servers_inherit_reaches_each_of_them_unless_its_entry_says_otherwise(place: Place) -> None:
    place.inherited = {"NO_PROXY": "intranet.example", "HTTP_PROXY": "http://proxy.example:3128"}
    entry = place.entry()
    own = entry.config.model_copy(update={"env": {**entry.config.env, "HTTP_PROXY": "http://other.example"}})
    entry = entry.model_copy(update={"config": own})
    async with place.pool() as pool, asyncio.timeout(10), pool.lease([entry]) as lease:
        given = (await call(lease, "environment")).output
    assert isinstance(given, dict)
    assert (given["NO_PROXY"], given["HTTP_PROXY"]) == ("intranet.example", "http://other.example")


# Leases of servers of their own


async def test_the_servers_of_a_lease_start_side_by_side(place: Place) -> None:
    config = {"command": "/bin/sh", "args": ["-c", f'sleep 1; exec "{sys.executable}" -S -E "$0"']}
    entries = []
    for number in range(4):
        entry = place.entry(server_id=f"s{number}")
        args = (*config["args"], entry.config.args[2])
        slow = entry.config.model_copy(update={"command": config["command"], "args": args})
        entries.append(entry.model_copy(update={"config": slow}))
    async with place.pool() as pool, asyncio.timeout(10):
        began = time.monotonic()
        async with pool.lease(entries) as lease:
            assert time.monotonic() - began < 3.5
            assert [(await call(lease, "echo", "x", server=entry.id)).text for entry in entries] == ["x"] * 4


async def test_a_server_that_fails_takes_the_others_of_its_lease_with_it(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match="'bad'"):
            async with pool.lease([place.entry(), place.entry("exit", "bad"), place.entry("mute", "slow")]):
                pytest.fail("entered without one of the servers")
        await all_gone(place)


async def test_a_lease_whose_body_raises_raises_just_that_and_leaves_nothing(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(LookupError, match="of the body"):  # noqa: PT012 - the leaving of the lease is the point
            async with pool.lease([place.entry()]) as lease:
                await call(lease, "echo")
                raise LookupError("of the body")
        await all_gone(place)


async def test_an_error_beside_the_pool_is_not_wrapped_by_it(place: Place) -> None:
    with pytest.raises(LookupError, match="of the body"):
        async with place.pool() as pool, pool.lease([place.entry(scope="shared")]):
            raise LookupError("of the body")
    await all_gone(place)


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "off"])
async def test_a_lease_that_is_cancelled_at_any_moment_leaves_nothing(place: Place, sandbox: str) -> None:
    entries = [place.entry(server_id=name, sandbox={"mode": sandbox}) for name in ("one", "two")]

    async def use(pool: ServerPool) -> None:
        async with pool.lease(entries) as lease:
            await lease.definitions("one")
            await call(lease, "hang", server="two")

    async with place.pool() as pool, asyncio.timeout(20):
        await pool.discover(entries[0])
        before = descriptors()
        for milliseconds in (0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 80, 120):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(use(pool))
                await asyncio.wait([task], timeout=milliseconds / 1000)
                task.cancel()
            assert task.cancelled()
            await all_gone(place)
        await eventually(lambda: descriptors() <= before, within_s=2)
    assert not zombies()


@pytest.mark.slow
async def test_a_lease_that_is_cancelled_again_and_again_leaves_nothing(place: Place) -> None:
    async def use(pool: ServerPool) -> None:
        async with pool.lease([place.entry("stubborn")]) as lease:
            await call(lease, "hang")

    async with place.pool() as pool, asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(use(pool))
            await eventually(lambda: place.notes)
            for _ in range(4):
                task.cancel()
                await asyncio.wait([task], timeout=0.02)
        await eventually(lambda: not place.find_processes(), within_s=8)
    assert not zombies()


async def test_twenty_leases_leak_no_descriptor_no_process_and_no_zombie(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(20):
        await pool.discover(place.entry())
        before = descriptors()

        async def use(number: int) -> None:
            async with pool.lease([place.entry(server_id=f"s{number}")]) as lease:
                if number % 2:
                    with pytest.raises(OutcomeUnknownError):
                        await call(lease, "crash", server=f"s{number}")
                else:
                    await call(lease, "echo", server=f"s{number}")

        for start in range(0, 20, 5):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + 5):
                    group.create_task(use(number))
        await eventually(lambda: descriptors() <= before, within_s=1)
        await all_gone(place)
        assert not zombies()


# Shared servers


async def test_many_calls_share_one_server_and_each_gets_its_own_answer(place: Place) -> None:
    shared = place.entry(scope="shared")
    async with place.pool() as pool, asyncio.timeout(10):

        async def use(number: int) -> str:
            async with pool.lease([shared]) as lease:
                await lease.definitions("hostile")
                return (await call(lease, "echo", str(number))).text

        async with asyncio.TaskGroup() as group:
            uses = [group.create_task(use(number)) for number in range(50)]
        assert [task.result() for task in uses] == [str(number) for number in range(50)]
        assert len(place.find_processes()) <= 3, "one server, and what confines it"
    await all_gone(place)


async def test_a_caller_that_is_cancelled_leaves_the_shared_session_to_the_others(place: Place) -> None:
    shared = place.entry(scope="shared")
    async with place.pool() as pool, asyncio.timeout(10), pool.lease([shared]) as lease:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call(lease, "hang"))
            await eventually(lambda: place.notes)
            task.cancel()
        assert (await call(lease, "echo", "still here")).text == "still here"
        await eventually(lambda: place.notes == ["hang", "cancelled hang", "echo still here"])


async def test_a_listing_that_is_cancelled_leaves_the_others_theirs(place: Place) -> None:
    shared = place.entry(scope="shared")
    async with place.pool() as pool, asyncio.timeout(10), pool.lease([shared]) as lease:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(list_tools(lease)) for _ in range(10)]
            await asyncio.wait(asking, timeout=0)
            for task in asking[:5]:
                task.cancel()
        assert [task.cancelled() or task.result() for task in asking] == [True] * 5 + [["echo"]] * 5


async def list_tools(lease: Lease) -> list[str]:
    return list(await lease.definitions("hostile"))


async def test_a_shared_server_that_died_is_started_again_and_nothing_is_sent_again(place: Place) -> None:
    shared = place.entry(scope="shared")
    async with place.pool() as pool, asyncio.timeout(10):
        async with pool.lease([shared]) as lease:
            async with asyncio.TaskGroup() as group:
                hanging = group.create_task(failure(lease, "hang"))
                await eventually(lambda: place.notes)
                crashing = group.create_task(failure(lease, "crash"))
            assert isinstance(hanging.result(), OutcomeUnknownError)
            assert isinstance(crashing.result(), OutcomeUnknownError)
            with pytest.raises(CallNotSentError, match="exited with code 9"):
                await call(lease, "echo", "too late")
            with pytest.raises(ServerUnavailableError, match="exited with code 9"):
                await lease.definitions("hostile")
        async with pool.lease([shared]) as lease:
            assert (await call(lease, "echo", "again")).text == "again"
        assert place.notes == ["hang", "crash", "echo again"]


async def failure(lease: Lease, tool: str) -> Exception:
    with pytest.raises(OutcomeUnknownError) as outcome:
        await call(lease, tool)
    return outcome.value


# Leaving


@pytest.mark.slow
async def test_leaving_with_calls_open_is_bounded_and_leaves_no_process(place: Place) -> None:
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        entered: list[ServerPool] = []
        outcomes: list[asyncio.Task[Exception]] = []
        async with place.pool() as pool:
            entered.append(pool)

            async def use(mode: str, scope: str) -> Exception:
                async with pool.lease([place.entry(mode, scope=scope)]) as lease:
                    return await failure(lease, "hang")

            outcomes += [group.create_task(use(*kind)) for kind in (("stubborn", "task"), ("polite", "shared"))]
            await eventually(lambda: len(place.notes) == 2)
            starting = group.create_task(expect_unavailable(pool, place.entry("mute", "starting")))
            await asyncio.wait([starting], timeout=0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 6
        await all_gone(place)
    assert all("closed" in str(task.result()) for task in outcomes)
    assert "closed" in starting.result() or "stopping" in starting.result()
    assert "stopping" in await expect_unavailable(entered[0], place.entry())
    assert not zombies()


async def expect_unavailable(pool: ServerPool, entry: StdioServer) -> str:
    with pytest.raises(ServerUnavailableError) as refusal:
        await pool.discover(entry)
    return str(refusal.value)


async def test_a_server_asked_for_while_the_pool_is_left_is_not_started(place: Place) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group, place.pool() as pool:
        asking = group.create_task(expect_unavailable(pool, place.entry(scope="shared")))
        await asyncio.wait([asking], timeout=0)
    assert "stopping" in asking.result() or "closed" in asking.result()
    await all_gone(place)


# In this process


class Slow:
    """A server in this process whose only call waits until the test releases it."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.go = asyncio.Event()
        self.finished = 0
        self.closed = 0

    def list_tools(self) -> Sequence[JsonObject]:
        return [{"name": "work", "inputSchema": {"type": "object"}}]

    async def call(self, _tool: str, arguments: JsonObject) -> JsonObject:
        self.called.set()
        await self.go.wait()
        self.finished += 1
        return {"content": [{"type": "text", "text": f"did {arguments['label']}"}]}

    def close(self) -> None:
        self.closed += 1

    def make(self, _entry: BuiltinServer) -> "Slow":
        return self


BUILTIN = BuiltinServer.model_validate({"id": "slow", "type": "builtin", "config": {"server": "text"}})


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def inside(slow: Slow, tmp_path: Path) -> AsyncIterator[ServerPool]:
    limits = LimitSettings(cancel_grace_s=0.2)
    async with asyncio.timeout(10), ServerPool(limits, Secrets(environ={}), slow.make, tmp_path) as pool:
        yield pool


@pytest.mark.parametrize("by", ["timeout", "cancel"])
async def test_a_call_in_this_process_is_waited_for_to_its_end(slow: Slow, inside: ServerPool, by: str) -> None:
    cancel = asyncio.Event()
    async with inside.lease([BUILTIN]) as lease, asyncio.TaskGroup() as group:
        timeout_s = 0.05 if by == "timeout" else 9
        working = group.create_task(call(lease, "work", "it", server="slow", timeout_s=timeout_s, cancel=cancel))
        await slow.called.wait()
        if by == "cancel":
            cancel.set()
        await asyncio.wait([working], timeout=0.4)
        assert not working.done()
        slow.go.set()
        assert (await working).text == "did it"


async def test_a_call_in_this_process_ends_even_where_its_caller_is_gone(slow: Slow, inside: ServerPool) -> None:
    async with inside.lease([BUILTIN]) as lease:
        async with asyncio.TaskGroup() as group:
            working = group.create_task(call(lease, "work", "it", server="slow"))
            await slow.called.wait()
            working.cancel()
        slow.go.set()
        await eventually(lambda: slow.finished == 1)


@pytest.mark.parametrize("hangs", [False, True])
async def test_leaving_the_pool_waits_some_seconds_for_a_call_in_this_process(
    slow: Slow, place: Place, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    monkeypatch.setattr(in_process, "_LEAVE_S", 0.2 if hangs else 9)

    async def work(pool: ServerPool) -> StoredResult | OutcomeUnknownError:
        async with pool.lease([BUILTIN]) as lease:
            try:
                return await call(lease, "work", "it", server="slow")
            except OutcomeUnknownError as error:
                return error

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with ServerPool(LimitSettings(), Secrets(environ={}), slow.make, place.folder) as pool:
            working = group.create_task(work(pool))
            await slow.called.wait()
            if not hangs:
                asyncio.get_running_loop().call_later(0.1, slow.go.set)
        outcome = await working
    assert isinstance(outcome, OutcomeUnknownError) if hangs else outcome == StoredResult(text="did it", size=6)
    assert slow.closed == 1


async def test_a_server_in_this_process_is_called_no_more_once_it_has_stopped(slow: Slow, inside: ServerPool) -> None:
    async with inside.lease([BUILTIN]) as lease:
        cancel = asyncio.Event()
        cancel.set()
        with pytest.raises(CallNotSentError, match="cancelled before"):
            await call(lease, "work", "it", server="slow", cancel=cancel)
        connection = await inside.connect(BUILTIN)
        assert await inside.connect(BUILTIN) is connection
        connection.stop()
        assert await inside.connect(BUILTIN) is not connection
        with pytest.raises(CallNotSentError, match="the connection was closed") as refusal:
            await call(lease, "work", "it", server="slow")
        assert refusal.value.may_pass
        with pytest.raises(ServerUnavailableError, match="the connection was closed"):
            await connection.definitions()
    assert not slow.called.is_set()


# Over HTTP


async def test_a_server_over_http_that_is_not_there_is_unavailable(place: Place) -> None:
    async with place.pool() as pool, asyncio.timeout(10):
        with pytest.raises(ServerUnavailableError, match="cannot connect"):
            await pool.discover(remote(f"http://127.0.0.1:{free_port()}/mcp"))


async def wait_for_listener(port: int) -> None:
    async def connects() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(connects)


async def test_a_server_over_http_that_is_killed_in_a_call_leaves_the_outcome_unknown(place: Place) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HTTP_SERVER), str(port), env={**os.environ}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await wait_for_listener(port)
        entry = remote(f"http://127.0.0.1:{port}/mcp")
        async with place.pool() as pool, asyncio.timeout(15), pool.lease([entry]) as lease:
            assert list(await lease.definitions("remote")) == ["wait"]
            async with asyncio.TaskGroup() as group:
                sleeping = group.create_task(outcome_of(lease, place.notes_file))
                await eventually(lambda: place.notes)
                process.kill()
            assert isinstance(sleeping.result(), OutcomeUnknownError)
            await process.wait()
            assert isinstance(await outcome_of(lease, place.notes_file), CallNotSentError)
        async with place.pool() as pool, asyncio.timeout(15):
            with pytest.raises(ServerUnavailableError, match="cannot connect"):
                await pool.discover(entry)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def outcome_of(lease: Lease, file: Path) -> object:
    try:
        return await lease.call("remote", "wait", {"file": str(file)}, timeout_s=9, cancel=asyncio.Event())
    except (CallNotSentError, OutcomeUnknownError) as error:
        return error
