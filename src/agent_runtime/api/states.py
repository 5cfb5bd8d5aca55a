"""States of front ends over REST; see docs/reference/state.md."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.deps import ENTITY_TAGS_PATTERN, CurrentCaller, Service, read_entity_tags
from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.openapi import refusals
from agent_runtime.api.problems import BadRequestError
from agent_runtime.api.scopes import requires
from agent_runtime.api.views import answer, time_of
from agent_runtime.states.saved import (
    Condition,
    SavedState,
    require_absent,
    require_present,
    require_revision,
)

router = APIRouter(prefix="/v1/state", tags=["States"])

Name = Annotated[str, Path(json_schema_extra={"pattern": "^[!-.0-~]{1,255}$"})]


class StateSaved(TypedDict):
    """A saved state, without its content. `revision` is its `ETag`."""

    agent: str
    thread: str
    revision: str
    saved_at: str


_JSON_OBJECT: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": ENTITY_TAGS_PATTERN},
            "description": description,
        }
        for name, description in (
            ("If-Match", "The ETag of the revision to replace, or `*` for any that exists."),
            ("If-None-Match", "The ETag of a revision not to replace, or `*`: only if there is no state yet."),
        )
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}


@router.get(
    "/{agent}/{thread}",
    response_class=Response,
    responses={
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}},
            "description": "The state as it was saved; `ETag` is its revision",
        },
        **refusals(404, 422, 503),
    },
)
@requires("read")
async def load_state(agent: Name, thread: Name, runtime: Service, caller: CurrentCaller) -> Response:
    """Return the state of an agent for a thread."""
    state = await runtime.states.load(agent, thread, caller)
    return Response(state.data, media_type="application/json", headers=_tag(state))


@router.put(
    "/{agent}/{thread}",
    response_class=Response,
    responses={
        200: {"model": StateSaved, "description": "Saved in place of an earlier state"},
        201: {"model": StateSaved, "description": "Saved; there was no state before"},
        **refusals(400, 412, 413, 415, 422, 503),
    },
    openapi_extra=_JSON_OBJECT,
)
@requires("submit")
async def save_state(request: Request, agent: Name, thread: Name, runtime: Service, caller: CurrentCaller) -> Response:
    """Save the state of an agent for a thread, whole. With `If-Match`, only in place of the revision that it names."""
    condition = _read_condition(request)
    if request.headers.get("content-length") == "0":
        raise BadRequestError("The body must be the state, a JSON object: {} is the empty one.")
    value = await judge_body(request, lambda value: value)
    state = await runtime.states.save(agent, thread, value, caller, condition)
    saved: StateSaved = {
        "agent": agent,
        "thread": thread,
        "revision": state.revision,
        "saved_at": time_of(state.saved_at),
    }
    response = answer(saved, 201 if state.number == 1 else 200)
    response.headers.update(_tag(state))
    return response


@router.delete("/{agent}/{thread}", status_code=204, responses=refusals(400, 404, 412, 422, 503))
@requires("submit")
async def delete_state(
    request: Request, agent: Name, thread: Name, runtime: Service, caller: CurrentCaller
) -> Response:
    """Delete the state of an agent for a thread."""
    await runtime.states.delete(agent, thread, caller, _read_condition(request))
    return Response(status_code=204)


def _tag(state: SavedState) -> dict[str, str]:
    return {"ETag": f'"{state.revision}"'}


def _read_condition(request: Request) -> Condition:
    """Return the condition that the headers name (RFC 9110, section 13.1). Raises: BadRequestError."""
    match, none_match = read_entity_tags(request, "If-Match"), read_entity_tags(request, "If-None-Match")
    conditions: list[Condition] = []
    if match is not None:
        conditions.append(require_present if match == "*" else require_revision(*match))
    if none_match == "*":
        conditions.append(require_absent)
    elif none_match is not None:
        unwanted = require_revision(*none_match)
        conditions.append(lambda state: not unwanted(state))
    return lambda state: all(condition(state) for condition in conditions)
