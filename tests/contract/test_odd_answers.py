"""Answers that do not follow MCP, over standard streams and over HTTP: whatever can be read is read (G2, G9)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import Offer, StoredResult
from odd_servers import GOOD, HANDSHAKE, Script, over_http
from pools import Lag, Place, call

Reach = Callable[[Script], AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["stdio", "json", pytest.param("events", marks=pytest.mark.slow)])
def reach(request: pytest.FixtureRequest, tmp_path: Path) -> Reach:
    """A function that opens a lease on a server with a script, over each transport."""

    @asynccontextmanager
    async def over(script: Script) -> AsyncIterator[Any]:
        place = Place(tmp_path)
        async with asyncio.timeout(20), place.pool() as pool:
            if request.param == "stdio":
                async with pool.lease([script.over_stdio(tmp_path)]) as lease:
                    yield lease
            else:
                with over_http(script, events=request.param == "events") as entry:
                    async with pool.lease([entry]) as lease:
                        yield lease

    return over


async def read_offer(reach: Reach, script: Script) -> Offer:
    async with reach(script) as lease:
        listed = await lease.list("remote")
        return Offer(tuple(listed.tools.values()), listed.left_out)


async def call_for(reach: Reach, result: Any) -> StoredResult:
    text = result if isinstance(result, str) else json.dumps(result)
    async with reach(Script.of_result(text)) as lease:
        return await call(lease, "good", server="remote", timeout_s=5)


def names(offer: Offer) -> list[str]:
    return [tool.name for tool in offer]


# The handshake


@pytest.mark.parametrize(
    "more",
    [
        {"serverInfo": None},
        {"serverInfo": {"name": 5}, "capabilities": None},
        {"serverInfo": [], "capabilities": {"tools": True}, "instructions": 7},
        {"capabilities": [], "serverInfo": {"name": "x", "version": 1.0, "icons": "none"}},
        {"protocolVersion": None, "_meta": [], "serverInfo": "x"},
    ],
)
async def test_what_a_server_says_of_itself_does_not_matter(reach: Reach, more: dict[str, Any]) -> None:
    said = {name: value for name, value in (HANDSHAKE | more).items() if value is not None}
    assert names(await read_offer(reach, Script(initialize=said))) == ["good"]


async def test_a_version_that_nobody_here_speaks_is_named(reach: Reach) -> None:
    with pytest.raises(ServerUnavailableError, match="2031-01-01"):
        await read_offer(reach, Script(initialize=HANDSHAKE | {"protocolVersion": "2031-01-01"}))


# The list


@pytest.mark.parametrize(
    "more",
    [
        {"title": 5, "description": None},
        {"title": None, "description": ["a"], "annotations": None},
        {"annotations": "readOnlyHint", "icons": 5, "_meta": "x", "execution": []},
        {"annotations": [], "outputSchema": None},
        {"outputSchema": "object"},
        {"inputSchema": None},
        {"inputSchema": []},
        {"inputSchema": {}},
        {"inputSchema": {"type": "object", "properties": None, "required": None}},
        {"inputSchema": {"type": "object", "properties": [], "required": True, "$schema": 5}},
    ],
)
async def test_an_odd_field_of_a_tool_leaves_the_tool_to_be_used(reach: Reach, more: dict[str, Any]) -> None:
    offer = await read_offer(reach, Script.of_tools({"name": "odd", "inputSchema": {"type": "object"}, **more}))
    assert names(offer) == ["good", "odd"]
    assert not offer.left_out


async def test_a_tool_without_a_schema_takes_anything(reach: Reach) -> None:
    assert names(await read_offer(reach, Script.of_tools({"name": "bare"}))) == ["good", "bare"]


@pytest.mark.parametrize(
    ("tool", "name", "fault"),
    [
        (5, "(number 2 of the list)", "it is no object"),
        (None, "(number 2 of the list)", "it is no object"),
        ({"inputSchema": {}}, "(number 2 of the list)", "it has no name"),
        ({"name": 5}, "(number 2 of the list)", "it has no name"),
        ({"name": ""}, "(number 2 of the list)", "its name is blank"),
        ({"name": "odd", "inputSchema": "object"}, "odd", "inputSchema: Input should be a valid dictionary"),
        ({"name": "odd", "inputSchema": [1]}, "odd", "inputSchema: Input should be a valid dictionary"),
        ({"name": "odd", "description": "x" * 70_000}, "odd", "over 65536"),
        ({"name": "x" * 300}, "x" * 256, "its name has more than 256 characters"),
        ({**GOOD, "title": "another"}, "good", "listed more than once, with different definitions"),
    ],
)
async def test_a_tool_that_cannot_be_used_is_named_with_its_fault_and_takes_no_other_away(
    reach: Reach, tool: Any, name: str, fault: str
) -> None:
    script = Script.of_tools(tool)
    script.pages["first"]["tools"].append({"name": "neighbour"})
    offer = await read_offer(reach, script)
    assert "neighbour" in names(offer)
    assert fault in offer.left_out[name]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ({"first": {"tools": None}}, []),
        ({"first": {"tools": [GOOD], "nextCursor": None}}, ["good"]),
        ({"first": {"tools": [GOOD], "nextCursor": ""}}, ["good"]),
        ({"first": {"tools": [GOOD], "nextCursor": ""}, "": {"tools": [{"name": "b"}]}}, ["good", "b"]),
        ({"first": {"tools": [GOOD], "nextCursor": "again"}}, ["good"]),
        ({"first": {"tools": [GOOD], "nextCursor": 2}, "2": {"tools": [{"name": "b"}]}}, ["good", "b"]),
        ({"first": {"tools": [GOOD], "nextCursor": "b"}, "b": {"tools": [GOOD, {"name": "b"}]}}, ["good", "b"]),
        ({"first": {"tools": [GOOD], "nextCursor": False, "ttlMs": -5, "cacheScope": 1, "_meta": 3}}, ["good"]),
    ],
)
async def test_a_list_ends_where_it_says_nothing_new(reach: Reach, pages: dict[str, Any], expected: list[str]) -> None:
    assert names(await read_offer(reach, Script(pages=pages))) == expected


async def test_a_server_that_lists_nothing_at_first_is_waited_for(tmp_path: Path) -> None:
    said = HANDSHAKE | {"capabilities": {"tools": {"listChanged": True}}}
    empty = Script(initialize=said, pages={"first": {"tools": []}})
    entry = empty.over_stdio(tmp_path, script={"later": {"first": {"tools": [GOOD]}}})
    async with Place(tmp_path).pool() as pool, asyncio.timeout(20):
        assert names(await pool.discover(entry)) == ["good"]


# The answer to a call


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": None}, ""),
        ({"content": "plain"}, "plain"),
        ({"content": {"type": "text", "text": "alone"}}, "alone"),
        ({"content": ["plain", 5, None]}, "plain\n5\n"),
        ({"content": [{"text": "of no type"}]}, "of no type"),
        ({"content": [{"type": "text", "text": None}]}, ""),
        ({"content": [{"type": "text", "text": 1.5}]}, "1.5"),
        ({"content": [{"type": "text", "text": "a", "annotations": 5, "_meta": []}], "_meta": 7}, "a"),
        ({"content": [{"type": "hologram", "size": 2}]}, '{"type":"hologram","size":2}'),
        ({"content": [{"type": "image", "data": 5}]}, '{"type":"image","data":5}'),
        ({"content": [{"type": "resource", "resource": None}]}, '{"type":"resource","resource":null}'),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "image", "data": "aGFsbG8="}]},
            "a\n[image, 5 bytes, not kept: only PNG, JPEG, GIF and WebP are kept]",
        ),
        ({"toolResult": {"content": [{"type": "text", "text": "old"}]}}, "old"),
        ([{"type": "text", "text": "a list"}], "a list"),
        ('"a text"', "a text"),
        ({}, ""),
    ],
)
async def test_what_can_be_read_of_a_result_is_kept_and_the_rest_is_named(reach: Reach, result: Any, text: str) -> None:
    stored = await call_for(reach, result)
    assert (stored.text, stored.is_error, stored.binary) == (text, False, False)


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ({"structuredContent": {"n": 2**60}}, {"n": 2**60}),
        ({"content": [], "structuredContent": [1]}, [1]),
        ({"content": None, "structuredContent": "five"}, "five"),
        ({"answer": 42, "_meta": {}}, {"answer": 42}),
        ({"toolResult": {"n": 1}}, {"n": 1}),
    ],
)
async def test_structured_content_is_kept_whatever_its_shape(reach: Reach, result: Any, output: Any) -> None:
    assert (await call_for(reach, result)).output == output


async def test_a_result_with_nothing_but_a_picture_is_binary_and_says_so(reach: Reach) -> None:
    stored = await call_for(reach, {"content": [{"type": "image", "data": "aGFsbG8=", "mimeType": "image/png"}]})
    assert (stored.binary, stored.text) == (True, "[image, image/png, 5 bytes, not kept: its content is not image/png]")


HALF = r'{"content":[{"type":"text","text":"a \ud83d"},{"type":"text","text":"\udc00\ud83d\ude00 \\ud83d"}]}'


async def test_half_of_a_surrogate_pair_is_replaced(reach: Reach) -> None:
    assert (await call_for(reach, HALF)).text == "a \ufffd\n\ufffd\U0001f600 \\ud83d"


async def test_bytes_that_are_no_utf_8_are_replaced(reach: Reach) -> None:
    assert (await call_for(reach, '{"content":[{"type":"text","text":"a\udcff"}]}')).text == "a\ufffd"


@pytest.mark.parametrize(
    "result",
    [
        "null",
        '{"content":[{"type":"text","text":"cut off',
        '{"structuredContent":' + "[" * 300 + "]" * 300 + "}",
        '{"structuredContent":{"n":' + "9" * 5000 + "}}",
        '{"content":[' + ",".join(["0"] * 30_000) + "]}",
    ],
    ids=["null", "cut off", "deep", "huge number", "crowded"],
)
async def test_an_answer_of_which_nothing_can_be_read_fails_the_call_at_once(reach: Reach, result: str) -> None:
    stored = await call_for(reach, result)
    assert (stored.is_error, stored.unreadable) == (True, True)
    assert "cannot be read" in stored.text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('{"jsonrpc":"2.0","id":$ID,"error":"no money"}', "no money"),
        ('{"jsonrpc":"2.0","id":$ID,"error":{"message":"no money"}}', "no money"),
        ('{"jsonrpc":"2.0","id":$ID,"error":{"code":"E1","message":null}}', '{"code":"E1","message":null}'),
        ('{"jsonrpc":"2.0","id":$ID,"error":{"code":-32000.0,"message":["no"]}}', '["no"]'),
        ('{"id":"$ID","error":{"code":1,"message":"no money"}}', "no money"),
        ('{"jsonrpc":"2.0","id":$ID,"result":null,"error":{"code":1,"message":"no money"}}', "no money"),
    ],
)
async def test_an_error_in_odd_words_is_the_servers_own(reach: Reach, answer: str, text: str) -> None:
    async with reach(Script(answers={"good": answer})) as lease:
        stored = await call(lease, "good", server="remote", timeout_s=5)
    assert (stored.is_error, stored.unreadable, stored.text) == (True, False, text)


@pytest.mark.parametrize(
    "answer",
    [
        '{"id":$ID,"result":{"content":"done"}}',
        '{"jsonrpc":"1.0","id":"$ID","result":{"content":"done"},"error":null}',
        '{"jsonrpc":2.0,"id":$ID.0,"result":{"content":"done"}}',
        '[{"jsonrpc":"2.0","id":$ID,"result":{"content":"done"}}]',
        '\ufeff{"jsonrpc":"2.0","id":$ID,"result":{"content":"done"}}',
    ],
)
async def test_an_odd_envelope_around_an_answer_does_not_matter(reach: Reach, answer: str) -> None:
    async with reach(Script(answers={"good": answer})) as lease:
        assert (await call(lease, "good", server="remote", timeout_s=5)).text == "done"


@pytest.mark.parametrize(
    "noise",
    [
        'request {"jsonrpc":"2.0","id":$ID,"method":"tools/call"',
        '{"level":"info","id":$ID,"result": of something',
        '{"level":"info","result":1,"id":7}',
    ],
)
async def test_a_line_that_only_mentions_the_call_does_not_end_it(tmp_path: Path, noise: str) -> None:
    answer = noise + '\n{"jsonrpc":"2.0","id":$ID,"result":{"content":"done"}}'
    entry = Script(answers={"good": answer}).over_stdio(tmp_path)
    async with asyncio.timeout(20), Place(tmp_path).pool() as pool, pool.lease([entry]) as lease:
        assert (await call(lease, "good", server="remote", timeout_s=5)).text == "done"


async def test_a_megabyte_of_half_pairs_stalls_nobody(tmp_path: Path) -> None:
    entry = Script.of_result('{"content":"%s"}' % (r"\ud83d" * 500_000)).over_stdio(tmp_path)
    lag = Lag()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, Place(tmp_path).pool() as pool:
        watch = group.create_task(lag.measure())
        async with pool.lease([entry]) as lease:
            assert (await call(lease, "good", server="remote")).text == "\ufffd" * 500_000
        watch.cancel()
    assert lag.worst_s < 1  # G9 promises answers within 1 s
