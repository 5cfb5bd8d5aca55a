"""CopilotKit at `/copilotkit`, in the dialects of all its eras; see docs/reference/copilotkit.md.

Versions from 1.50 use paths, or envelopes with a `method` at one address. A body with `query` at that address is
GraphQL, which versions up to 1.10.6 speak.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.responses import Response

from agent_runtime import __version__
from agent_runtime.api.agents import AGENT_DESCRIPTION, NAMES
from agent_runtime.api.agui_input import read_input
from agent_runtime.api.agui_runs import answer_connect, answer_run, stop_current
from agent_runtime.api.auth import caller_of
from agent_runtime.api.copilotkit_graphql.serving import answer_graphql
from agent_runtime.api.deps import Service
from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.problems import BadRequestError, missing_scope, status_of
from agent_runtime.api.scopes import requires
from agent_runtime.api.views import answer
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.errors import AgentRuntimeError, InvalidInputError, ScopeMissingError
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.text.escaping import cut, escape_hidden


class _NoSuchAgentError(AgentRuntimeError):
    """There is no agent of this name."""


class _PlainRoute(APIRoute):
    """Answers errors as front ends of CopilotKit read them: `{"error": ..., "message": ...}`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # it is awaited
        handle = super().get_route_handler()

        async def handle_plainly(request: Request) -> Response:
            try:
                return await handle(request)
            except AgentRuntimeError as error:
                return _refuse(error)

        return handle_plainly


router = APIRouter(prefix="/copilotkit", route_class=_PlainRoute, include_in_schema=False)


@router.get("/info")
@requires("read", "submit", "approve")
async def show_info() -> Response:
    """Describe the service as a runtime of CopilotKit."""
    return answer(describe_runtime())


@router.post("/agent/{agent}/run")
@requires("submit", "approve")  # a message needs `submit`, each answer the scope of its decision, and all need `read`
async def run_agent(request: Request, agent: str, runtime: Service) -> Response:
    """Submit the last message as a task of its thread, or answer interrupts, and follow the task."""
    _check_agent(agent)
    return await answer_run(request, runtime, caller_of(request.scope), await judge_body(request, read_input))


@router.post("/agent/{agent}/connect")
@requires("read")
async def connect(request: Request, agent: str, runtime: Service) -> Response:
    """Tell what has happened in a thread, and follow its task."""
    _check_agent(agent)
    return await answer_connect(request, runtime, caller_of(request.scope), await judge_body(request, read_input))


@router.post("/agent/{agent}/stop/{thread}")
@requires("submit", "approve")
async def stop(request: Request, agent: str, thread: str, runtime: Service) -> Response:
    """Cancel the current task of a thread."""
    _check_agent(agent)
    return await _stop(request, runtime, thread)


@router.post("")
@requires("read", "submit", "approve")  # and each operation needs the scope of what it does
async def take_request(request: Request, runtime: Service) -> Response:
    """Answer a request in the dialect of its body: GraphQL, or an envelope with `method`, `params` and `body`."""
    try:
        envelope = await judge_body(request, lambda value: value)
    except AgentRuntimeError as error:
        return _refuse_body(str(error), status_of(error))
    if isinstance(envelope, dict) and "query" in envelope:
        return await answer_graphql(request, envelope)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("method"), str):
        return _refuse_body(
            "The body must have 'query', a document of GraphQL, or 'method', as {\"method\": \"info\"}."
        )
    caller = caller_of(request.scope)
    method, params = envelope["method"], envelope.get("params")
    if method == "info":
        return answer(describe_runtime())
    if method not in _METHODS:
        raise BadRequestError(f"There is no method {cut(method, 80)!r}: use 'info', {', '.join(map(repr, _METHODS))}.")
    if not caller.may(*_METHODS[method]):
        raise ScopeMissingError(f"The caller {caller.name!r} may not use {method!r}.", _METHODS[method][0])
    _check_agent(_read_param(params, "agentId"))
    if method == "agent/stop":
        return await _stop(request, runtime, _read_param(params, "threadId"))
    given = read_input(envelope.get("body"))
    return await (answer_run if method == "agent/run" else answer_connect)(request, runtime, caller, given)


_METHODS = {
    "agent/run": run_agent.required_scopes,  # type: ignore[attr-defined]  # set by `requires`
    "agent/connect": connect.required_scopes,  # type: ignore[attr-defined]  # likewise
    "agent/stop": stop.required_scopes,  # type: ignore[attr-defined]  # likewise
}
"""The methods of envelopes about an agent, with the scopes of which their callers need one."""


def describe_runtime() -> JsonObject:
    """Return what CopilotKit asks a runtime about itself. What is not offered is said to be off."""
    capabilities = {
        "identity": {"name": "Agent Runtime", "version": __version__},
        "transport": {"streaming": True},
        "state": {"snapshots": True, "deltas": True},
        "humanInTheLoop": {
            "supported": True,
            "approvals": True,
            "feedback": True,
            "interrupts": True,
            "approveWithEdits": True,
        },
    }
    agents = {
        name: {
            "name": name,
            "description": AGENT_DESCRIPTION,
            "className": "AgentRuntime",
            "capabilities": capabilities,
        }
        for name in NAMES
    }
    return {
        "version": __version__,
        "agents": agents,
        "mode": "sse",
        "audioFileTranscriptionEnabled": False,
        "threadEndpoints": {"list": False, "inspect": False, "mutations": False, "realtimeMetadata": False},
        "suggestions": False,
        "a2uiEnabled": False,
        "openGenerativeUIEnabled": False,
        "telemetryDisabled": True,
    }


async def _stop(request: Request, runtime: Runtime, thread: str) -> Response:
    task = await stop_current(runtime, caller_of(request.scope), thread)
    if task is None:
        return answer({"stopped": False, "message": "Nothing runs in this thread."})
    stopped = {"type": "RUN_ERROR", "message": f"Task {task.task_id} was cancelled.", "code": "STOPPED"}
    return answer({"stopped": True, "interrupt": stopped})


def _check_agent(name: str) -> None:
    """Check that there is an agent of this name. Raises: _NoSuchAgentError."""
    if name not in NAMES:
        known = " or ".join(map(repr, NAMES))
        raise _NoSuchAgentError(f"There is no agent {escape_hidden(cut(name, 80))!r}: use {known}.")


def _refuse_body(message: str, status: int = HTTPStatus.BAD_REQUEST) -> Response:
    """Return an answer that front ends of both eras read, as it is not known which one has sent the body."""
    plain = {"error": HTTPStatus(status).phrase, "message": cut(message, 4000)}
    return answer({**plain, "errors": [{"message": plain["message"], "extensions": {"code": "BAD_REQUEST"}}]}, status)


def _read_param(params: JsonValue, name: str) -> str:
    """Return a parameter of an envelope. Raises: BadRequestError."""
    value = params.get(name) if isinstance(params, dict) else None
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"The envelope needs params.{name}, a text.")
    return value


def _refuse(error: AgentRuntimeError) -> Response:
    """Return the answer to a refused request. Raises: the error itself if the caller did not cause it."""
    status = HTTPStatus.NOT_FOUND if isinstance(error, _NoSuchAgentError) else HTTPStatus(status_of(error))
    message = str(error)
    if isinstance(error, InvalidInputError):
        message = "; ".join(f"{fault.field}: {fault.message}" for fault in error.faults[:10])
    headers = missing_scope(error.scope) if isinstance(error, ScopeMissingError) else None
    body = to_json({"error": status.phrase, "message": cut(message, 4000)})
    return Response(body, status, headers, media_type="application/json")
