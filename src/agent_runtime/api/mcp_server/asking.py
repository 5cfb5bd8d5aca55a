"""Questions to a person in a client of the handshake era, to which a server sends requests."""

import itertools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import ClientCapabilities, ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequest
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from agent_runtime.api.mcp_server.definitions import PATIENCE_META_KEY
from agent_runtime.domain.errors import AgentRuntimeError

log = structlog.get_logger()

Context: TypeAlias = ServerRequestContext[Any, Any]

_TICK_S = 10.0


def is_modern(context: Context) -> bool:
    """Return whether the client repeats a call with the answers, instead of taking requests of the server."""
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS


def make_report(context: Context) -> Callable[[str], Awaitable[None]]:
    """Return what tells the client one line of progress at a time, counted from 1."""
    counted = itertools.count(1)

    async def report(line: str) -> None:
        await context.session.report_progress(next(counted), None, line)

    return report


def read_patience(meta: Mapping[str, Any] | None) -> float:
    """Return the seconds for which a question waits in the client, as the `_meta` of a result that asks says."""
    return float((meta or {}).get(PATIENCE_META_KEY, 600))


def can_ask(context: Context) -> bool:
    """Return whether the client shows a form to a person."""
    capabilities: ClientCapabilities | None = context.session.client_capabilities
    offered = capabilities.elicitation if capabilities else None
    shows_forms = offered is not None and (offered.form is not None or offered.url is None)
    return shows_forms and (is_modern(context) or context.session.can_send_request)


async def ask(
    context: Context,
    requests: Mapping[str, InputRequest],
    wait_until_closed: Callable[[str], Awaitable[None]],
    report: Callable[[str], Awaitable[None]],
    patience_s: float,
) -> dict[str, ElicitResult]:
    """Ask the person in the client, one question after the other, each for `patience_s`, and return the answers.

    A question that is answered elsewhere meanwhile (`wait_until_closed` returns) is withdrawn. Reports progress, so
    that clients keep waiting.
    """
    answers: dict[str, ElicitResult] = {}
    for key, request in requests.items():
        if isinstance(request, ElicitRequest) and isinstance(request.params, ElicitRequestFormParams):
            answers[key] = await _ask_one(context, request.params, partial(wait_until_closed, key), report, patience_s)
    return answers


async def _ask_one(
    context: Context,
    params: ElicitRequestFormParams,
    wait_until_closed: Callable[[], Awaitable[None]],
    report: Callable[[str], Awaitable[None]],
    patience_s: float,
) -> ElicitResult:
    answer = ElicitResult(action="cancel")
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with suppress(AgentRuntimeError):  # the task is deleted
                await wait_until_closed()
            group.cancel_scope.cancel()

        async def tick() -> None:
            while True:
                await anyio.sleep(_TICK_S)
                await report("A person is asked.")

        group.start_soon(watch)
        group.start_soon(tick)
        with anyio.move_on_after(patience_s):
            try:
                answer = await context.session.elicit_form(params.message, params.requested_schema, context.request_id)
            except (MCPError, ValidationError) as error:
                log.info("mcp_question_failed", error=str(error)[:500])
        group.cancel_scope.cancel()
    return answer
