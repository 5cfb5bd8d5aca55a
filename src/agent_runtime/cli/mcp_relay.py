"""Passes the requests of an MCP client on standard input on to `/mcp` of a service, in whichever era the client speaks.

Each request becomes one of the stateless era. So the service may restart between two of them, and during one: a request
that was lost is sent again.
"""

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from secrets import token_hex
from typing import Any

import anyio
import httpx2
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
)
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PROTOCOL_VERSION_META_KEY,
    CallToolRequestParams,
    InputRequiredResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    RequestParams,
)
from mcp_types.version import LATEST_MODERN_VERSION

from agent_runtime import __version__
from agent_runtime.api.mcp_server.asking import Context, ask, is_modern, make_report, read_patience
from agent_runtime.api.mcp_server.definitions import INSTRUCTIONS, NAME, TASK_META_KEY, TITLE
from agent_runtime.client.errors import ClientError, ServiceUnreachableError, UnavailableError, read_error
from agent_runtime.client.requests import Url, address_of, transport_options, unreachable
from agent_runtime.client.retries import SILENCE_S, Retries

AWAY_S = 30.0
"""Seconds that the service may be away, such as during a restart."""

_LOOK_S = 2.0
"""Seconds between two looks at a task while a person is asked about it."""

_FORWARDED: Mapping[str, type[RequestParams]] = {
    "tools/list": PaginatedRequestParams,
    "tools/call": CallToolRequestParams,
    "resources/list": PaginatedRequestParams,
    "resources/templates/list": PaginatedRequestParams,
    "resources/read": ReadResourceRequestParams,
}

_Params = dict[str, Any]


class Relay:
    """Forwards requests to the service at `url`, with `key`."""

    def __init__(self, url: Url, key: str | None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._ids = itertools.count(1)
        self._http = httpx2.AsyncClient(timeout=SILENCE_S, **transport_options(address_of(url)))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def create_server(self) -> Server[Any]:
        """Return the MCP server whose requests are forwarded."""
        server: Server[Any] = Server(NAME, version=__version__, title=TITLE, instructions=INSTRUCTIONS)
        for method, params_type in _FORWARDED.items():
            server.add_request_handler(method, params_type, self._handle)
        return server

    async def _handle(self, context: Context, _: RequestParams) -> _Params:
        """Forward a request. Ask a client of the handshake era until it has its result. Raises: MCPError."""
        params = dict(context.params or {})
        if context.method == "tools/call" and params.get("name") == "submit_task":
            # As the clients of the service do: a submission that is sent again makes no second task.
            params["arguments"] = {"idempotency_key": token_hex(16), **(params.get("arguments") or {})}
        report = make_report(context)
        while True:
            result = await self._send(context, params, report)
            if is_modern(context) or result.get("resultType") != "input_required":
                return result
            required = InputRequiredResult.model_validate(result)
            task_id = (result.get("_meta") or {}).get(TASK_META_KEY)
            before = await self._look(context, task_id)

            async def wait_until_closed(_: str, task_id: Any = task_id, before: Any = before) -> None:
                while await self._look(context, task_id) == before:  # noqa: ASYNC110 - the service is elsewhere
                    await anyio.sleep(_LOOK_S)

            patience_s = read_patience(result.get("_meta"))
            answers = await ask(context, required.input_requests or {}, wait_until_closed, report, patience_s)
            params["requestState"] = required.request_state
            params["inputResponses"] = {
                key: answer.model_dump(by_alias=True, mode="json", exclude_none=True, include={"action", "content"})
                for key, answer in answers.items()
            }

    async def _look(self, context: Context, task_id: Any) -> Any:
        """Return what a task asks now; None if it cannot be read."""
        params = {"name": "get_task", "arguments": {"task_id": task_id}}

        async def ignore(_: str) -> None:
            """Discard the progress of a look."""

        try:
            found = (await self._send(context, params, ignore, "tools/call")).get("structuredContent") or {}
        except MCPError:
            return None
        return [found.get(name) for name in ("status", "plan_digest", "attention")]

    async def _send(self, context: Context, params: _Params, report: Any, method: str | None = None) -> _Params:
        """Send a request until it is answered, and return its result. Raises: MCPError."""
        method = method or context.method
        request_id = next(self._ids)
        body = {
            "jsonrpc": "2.0",
            "id": request_id,
            "method": method,
            "params": {**params, "_meta": _envelope(context, params, request_id)},
        }
        headers = {
            **self._headers,
            "Accept": "application/json, text/event-stream",
            MCP_PROTOCOL_VERSION_HEADER: LATEST_MODERN_VERSION,
            MCP_METHOD_HEADER: method,
        }
        name = params.get(NAME_BEARING_METHODS.get(method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        retries = Retries(AWAY_S)
        while True:
            try:
                async for message in self._messages(body, headers, retries):
                    if message.get("method") == "notifications/progress":
                        await report(str(message["params"].get("message", "")))
                    elif "error" in message:
                        raise _error_of(message["error"])
                    elif "result" in message:
                        result: _Params = message["result"]
                        return result
                lost = ServiceUnreachableError("The service ended the connection before its answer.")
                pause = retries.pause_after(lost)
            except (ServiceUnreachableError, UnavailableError) as error:
                try:
                    pause = retries.pause_after(error)
                except ClientError as last:
                    raise MCPError(INTERNAL_ERROR, str(last)) from last
            await anyio.sleep(pause)

    async def _messages(self, body: Any, headers: Mapping[str, str], retries: Retries) -> AsyncIterator[_Params]:
        """Yield the messages of one answer. Raises: ServiceUnreachableError, UnavailableError, MCPError."""
        url = f"{address_of(self._url)}/mcp"
        try:
            async with self._http.stream("POST", url, json=body, headers=headers) as response:
                if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                    raise read_error(url, response.status_code, response.headers.get("Retry-After"), b"")
                retries.restart()
                if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            yield _parse(url, line.removeprefix("data: "))
                    return
                content = await response.aread()
                answered = _parse(url, content) if content else {}
                if "jsonrpc" not in answered:
                    raise MCPError(INVALID_REQUEST, str(read_error(url, response.status_code, None, content)))
                yield answered
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise unreachable(url, error) from error


def _envelope(context: Context, params: _Params, request_id: int) -> _Params:
    """Return the `_meta` of a request of the stateless era, on behalf of the client."""
    session = context.session
    capabilities, info = session.client_capabilities, session.client_params
    offered = capabilities.model_dump(by_alias=True, mode="json", exclude_none=True) if capabilities else {}
    meta = {
        **(params.get("_meta") or {}),
        "progressToken": request_id,
        PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
        CLIENT_CAPABILITIES_META_KEY: offered,
    }
    if info is not None:
        meta[CLIENT_INFO_META_KEY] = info.client_info.model_dump(by_alias=True, mode="json", exclude_none=True)
    return meta


def _parse(url: str, text: str | bytes) -> _Params:
    """Return a message. Raises: MCPError if it is none."""
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise MCPError(INTERNAL_ERROR, f"The answer of {url} is not JSON; is it an Agent Runtime?")


def _error_of(error: Mapping[str, Any]) -> MCPError:
    return MCPError(int(error["code"]), str(error["message"]), error.get("data"))
