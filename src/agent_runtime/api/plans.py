"""Plans over REST, before they are approved: another one asked for, or edited by hand. See docs/api.md."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.auth import actor_of
from agent_runtime.api.bodies import ReviseRequest
from agent_runtime.api.deps import TaskId, decode, if_match, known_form, read_json, runtime_of
from agent_runtime.api.openapi import body_of, header, refusals
from agent_runtime.api.shapes import TaskView
from agent_runtime.api.views import task_answer
from agent_runtime.domain.approval import Revise
from agent_runtime.domain.plan import Plan
from agent_runtime.services.agent_service import parse_plan

plans = APIRouter(prefix="/v1/tasks", tags=["Plans"])


@plans.post(
    "/{task_id}/revise",
    status_code=202,
    responses={
        202: {"model": TaskView, "description": "It is planned again; the task as it stands"},
        **refusals(400, 404, 409, 413, 415, 422, 503),
    },
    openapi_extra=body_of(ReviseRequest),
)
async def revise_plan(request: Request, task_id: TaskId) -> Response:
    """Have the task planned again with what should be different. The next revision awaits approval like the first."""
    runtime = runtime_of(request)
    known_form(task_id)
    body = decode(ReviseRequest, await read_json(request, runtime.settings.limits))
    decision = Revise(feedback=body.feedback, actor=actor_of(request.scope))
    return task_answer(await runtime.tasks.decide(task_id, decision), 202)


@plans.put(
    "/{task_id}/plan",
    responses={
        200: {"model": TaskView, "description": "Edited; the task as it stands, with the new digest as its `ETag`"},
        **refusals(400, 404, 409, 412, 413, 415, 422, 428, 503),
    },
    openapi_extra=body_of(Plan) | header("If-Match", "The digest of the plan that was edited, in quotes."),
)
async def edit_plan(request: Request, task_id: TaskId) -> Response:
    """Put a plan of your own in place of the one that awaits approval. It is the next revision, and awaits it too.

    It is judged like any other; every fault is named.
    """
    runtime = runtime_of(request)
    known_form(task_id)
    digests = if_match(request)
    plan = parse_plan(await read_json(request, runtime.settings.limits))
    return task_answer(await runtime.tasks.edit(task_id, plan, digests, actor=actor_of(request.scope)))
