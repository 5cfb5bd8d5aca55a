"""Reads the messages of servers tolerantly, before a typed model of the SDK sees them.

`docs/mcp-servers.md` describes what is tolerated. A well-formed message passes the SDK's own check and costs nothing
more; only a message that fails the check is read again here.
"""

import re
from collections.abc import Iterable, Mapping

from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from mcp_types.version import LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic_core import from_json, to_json

from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.mcp_servers.results import to_text

_RAW = "agent-runtime/raw"
"""The key of `_meta` under which a raw answer passes through the SDK."""

_UNREADABLE = "agent-runtime/unreadable"

_RESYNC_ATTEMPTS = 16
_RESYNC_BYTES = 64 * 1024
_LARGEST_ID = 2**53

_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
"""A whole surrogate pair, half of one, or any other escape, in this order."""

_HALF_PAIR = 6

_NUMBER = rb'"id"\s*:\s*(?:(\d{1,15})|"(\d{1,15})")\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"[^"]{0,8}"\s*'
_ID_FIRST = re.compile(
    rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _NUMBER + rb",\s*(?:" + _VERSION + rb',\s*)?"(?:result|error)"'
)
_ID_LAST = re.compile(_NUMBER + rb"(?:,\s*" + _VERSION + rb")?\}\s*$")
_END_BYTES = 200


class UnreadableAnswerError(Exception):
    """A server answered the id of the request with data that cannot be read."""


def read_well_formed(data: bytes) -> JSONRPCMessage | None:
    """Return the message of one line, event or body; None if it is not valid JSON-RPC."""
    try:
        return jsonrpc_message_adapter.validate_json(data, by_name=False)
    except ValueError:
        return None


def read_tolerantly(data: bytes, *, whole: bool = True) -> list[JSONRPCMessage]:
    """Return the messages of a malformed line, event or body; an empty list if it holds none.

    If nothing but the id of an answer can be read, the result is one that `check_readable` refuses. With `whole` False
    the data may have been cut off, and such answers are ignored. Call it in a thread if the data is large.
    """
    if b'"' not in data:
        return []
    value = _parse(data)
    if value is None:
        return _make_unreadable_answer(data) if whole else []
    items = value if isinstance(value, list) else [value]
    return [message for item in items if isinstance(item, dict) and (message := _to_message(item)) is not None]


def read_answer(data: bytes) -> JSONRPCMessage | None:
    """Return the message of an event or a body, or the answer if there are several messages; None if there is none."""
    message = read_well_formed(data)
    if message is not None:
        return message
    messages = read_tolerantly(data)
    answers = [one for one in messages if isinstance(one, JSONRPCResponse | JSONRPCError)]
    return next(iter(answers or messages), None)


def _parse(data: bytes) -> JsonValue:
    """Return the JSON value of the data, or of its end if it begins with something else; None if there is none."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    for begin in _find_beginnings(text):
        part = text[begin:]
        for candidate in (part, _mend(part)):
            try:
                value = from_json(candidate)
            except ValueError:
                continue
            if isinstance(value, dict | list):
                return value
    return None


def _find_beginnings(data: bytes) -> Iterable[int]:
    """Yield the positions at which JSON may begin: some servers print a greeting first, or log to the same stream."""
    yield 0
    start = 0
    if len(data) <= _RESYNC_BYTES:
        for _ in range(_RESYNC_ATTEMPTS):
            start = data.find(b"{", start + 1)
            if start < 0:
                return
            yield start


def _mend(data: bytes) -> bytes:
    """Return the data as valid UTF-8, with lone surrogates replaced by U+FFFD."""
    text = data.decode(errors="replace").encode()
    return _ESCAPE.sub(_mend_escape, text) if rb"\u" in text else text


def _mend_escape(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    return rb"\ufffd" if len(escape) == _HALF_PAIR else escape


def _to_message(value: JsonObject) -> JSONRPCMessage | None:
    """Return the message that an object stands for, however odd its envelope; None if it stands for none."""
    number = _to_request_id(value.get("id"))
    method = value.get("method")
    if isinstance(method, str):
        params = value.get("params")
        given = {"params": params} if isinstance(params, dict) else {}
        if number is None:
            return JSONRPCNotification(jsonrpc="2.0", method=method, **given)
        return JSONRPCRequest(jsonrpc="2.0", id=number, method=method, **given)
    if value.get("error") is not None:
        return JSONRPCError(jsonrpc="2.0", id=number, error=_to_error(value["error"]))
    if number is not None and "result" in value:
        return JSONRPCResponse(jsonrpc="2.0", id=number, result=_to_result(value["result"]))
    return None


def _to_request_id(value: JsonValue) -> RequestId | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_ID:
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _to_error(value: JsonValue) -> ErrorData:
    if not isinstance(value, Mapping):
        return ErrorData(code=INTERNAL_ERROR, message=to_text(value))
    code, message = value.get("code"), value.get("message")
    number = int(code) if isinstance(code, float) and code.is_integer() else code
    if not isinstance(number, int) or isinstance(number, bool):
        number = INTERNAL_ERROR
    words = message if isinstance(message, str) else to_text(value if message is None else message)
    return ErrorData(code=number, message=words, data=value.get("data"))


def _to_result(value: JsonValue) -> JsonObject:
    """Return a result as an object: a list is content, a text is one block of it; `null` cannot be read."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | str):
        return {"content": value}
    return _mark_unreadable(f"its result is {to_text(value)}")


def _mark_unreadable(reason: str) -> JsonObject:
    return {"_meta": {_UNREADABLE: reason}}


def _make_unreadable_answer(data: bytes) -> list[JSONRPCMessage]:
    found = _ID_FIRST.match(data)
    if found is None and data.lstrip()[:1] == b"{" and (b'"result"' in data or b'"error"' in data):
        found = _ID_LAST.search(data[-_END_BYTES:])
    if found is None:
        return []
    number = int(found[1] or found[2])
    return [
        JSONRPCResponse(jsonrpc="2.0", id=number, result=_mark_unreadable("its answer is no JSON that can be read"))
    ]


def check_readable(raw: JsonObject) -> None:
    """Check that this result could be read. Raises: UnreadableAnswerError."""
    meta = raw.get("_meta")
    if isinstance(meta, dict) and isinstance(reason := meta.get(_UNREADABLE), str):
        raise UnreadableAnswerError(reason)


def make_stand_in(method: str, raw: JsonObject, *, remote: bool) -> JsonObject:
    """Return a result that the SDK accepts, in place of the raw one; `unwrap_answer` returns the raw one.

    For a `remote` server it contains the tools whose arguments the SDK has to mirror in headers.
    """
    match method:
        case "initialize":
            return _stand_in_for_initialize(raw)
        case "server/discover":
            return _stand_in_for_discover(raw)
        case "tools/list":
            tools = _find_tools_with_headers(raw) if remote else []
            return _COMPLETE | {"tools": tools, "ttlMs": 0, "cacheScope": "private", "_meta": {_RAW: raw}}
        case "tools/call":
            return _COMPLETE | {"content": [], "_meta": {_RAW: raw}}
    return raw


_COMPLETE: JsonObject = {"resultType": "complete"}


def unwrap_answer(answer: JsonObject) -> JsonObject:
    """Return the result as the server sent it."""
    meta = answer.get("_meta")
    raw = meta.get(_RAW) if isinstance(meta, dict) else None
    return raw if isinstance(raw, dict) else answer


def _stand_in_for_initialize(raw: JsonObject) -> JsonObject:
    """Return what the session uses of the handshake: the version, and whether the server announces changes of its
    tools.
    """
    version = raw.get("protocolVersion")
    said = version if isinstance(version, str) and version else LATEST_HANDSHAKE_VERSION
    return {"protocolVersion": said, "capabilities": _make_capabilities(raw), "serverInfo": {"name": "", "version": ""}}


def _stand_in_for_discover(raw: JsonObject) -> JsonObject:
    versions = raw.get("supportedVersions")
    said = [one for one in versions if isinstance(one, str)] if isinstance(versions, list) else []
    supported = said or list(MODERN_PROTOCOL_VERSIONS)
    more = {
        "supportedVersions": supported,
        "capabilities": _make_capabilities(raw),
        "ttlMs": 0,
        "cacheScope": "private",
    }
    return _COMPLETE | more


def _make_capabilities(raw: JsonObject) -> JsonObject:
    said = raw.get("capabilities")
    tools = said.get("tools") if isinstance(said, dict) else None
    return {"tools": {"listChanged": isinstance(tools, dict) and tools.get("listChanged") is True}}


def _find_tools_with_headers(raw: JsonObject) -> list[JsonValue]:
    tools = raw.get("tools")
    return [
        {"name": tool["name"], "inputSchema": {"type": "object", "properties": _read_properties(tool["inputSchema"])}}
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("name"), str) and mirrors_arguments(tool.get("inputSchema"))
    ]


def mirrors_arguments(schema: JsonValue) -> bool:
    """Return whether a schema names headers for arguments, as servers of 2026-07-28 may over HTTP."""
    return isinstance(schema, dict) and b'"x-mcp-header"' in to_json(schema, inf_nan_mode="constants")


def _read_properties(schema: JsonObject) -> JsonObject:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: value for name, value in properties.items() if isinstance(value, dict)}


def find_names_with_headers(page: JsonObject) -> set[str]:
    """Return the names of the tools on a page whose arguments are mirrored in headers."""
    return {tool["name"] for tool in _find_tools_with_headers(page)}


def read_page(page: JsonObject) -> tuple[list[JsonValue], str | None]:
    """Return the tools of a page, and the cursor of the next page, None if there is none.

    Raises: UnreadableAnswerError where it is no page of tools.
    """
    tools, cursor = page.get("tools", ""), page.get("nextCursor")
    if tools is None:
        tools = []
    if not isinstance(tools, list):
        raise UnreadableAnswerError("its list of tools does not follow MCP: `tools` is no list")
    if cursor is None or cursor is False:
        return tools, None
    if isinstance(cursor, bool) or not isinstance(cursor, str | int):
        raise UnreadableAnswerError("its list of tools does not follow MCP: `nextCursor` is no text")
    return tools, str(cursor)
