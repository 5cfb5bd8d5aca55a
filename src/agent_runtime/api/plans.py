"""Plans over REST before their approval: revise, edit, compare and preview them.

See docs/reference/rest.md.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from agent_runtime.api.bodies import DiffQuery, PlanBody, ReviseRequest
from agent_runtime.api.deps import CurrentCaller, EditedDigests, Service, make_answer, whole_journals
from agent_runtime.api.json_route import JsonRoute
from agent_runtime.api.openapi import refusals
from agent_runtime.api.plan_views import diff_view, revision_view
from agent_runtime.api.scopes import requires
from agent_runtime.api.shapes import DiffView, PlanPreview, RevisionsView, TaskCreated, TaskView
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer, plan_preview, task_answer
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Edit, Revise
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import DecisionRefusedError
from agent_runtime.domain.revisions import Revision

plans = APIRouter(prefix="/v1/tasks", tags=["Plans"], route_class=JsonRoute, strict_content_type=False)


@plans.post(
    "/{task_id}/revise",
    status_code=202,
    responses={
        202: {
            "model": TaskView | TaskCreated,
            "description": "Planning again. The answer is the task; without the scope `read`, its id and status",
        },
        **refusals(400, 404, 409, 413, 415, 422, 503),
    },
)
@requires("submit", "approve")  # the new plan awaits approval again
async def revise_plan(
    request: Request, task_id: TaskId, body: ReviseRequest, runtime: Service, caller: CurrentCaller
) -> Response:
    """Plan the task again, with feedback on the current plan. The new revision awaits approval like the first."""
    task = await runtime.tasks.decide(task_id, Revise(feedback=body.feedback), caller)
    return await make_answer(request, task, partial(task_answer, task, request, 202))


@plans.put(
    "/{task_id}/plan",
    responses={
        200: {
            "model": TaskView | TaskCreated,
            "description": "Edited. The answer is the task, with the new digest as its `ETag`; without the scope "
            "`read`, its id and status",
        },
        **refusals(400, 404, 409, 412, 413, 415, 422, 428, 503),
    },
)
@requires("submit")
async def edit_plan(
    request: Request, task_id: TaskId, plan: PlanBody, digests: EditedDigests, runtime: Service, caller: CurrentCaller
) -> Response:
    """Replace the plan that awaits approval with an edited plan, which becomes the next revision.

    It is checked like any other plan, and the answer lists every fault.
    """
    task = await runtime.tasks.decide(task_id, Edit(plan=plan, digests=digests), caller)
    return await make_answer(request, task, partial(task_answer, task, request))


@plans.get("/{task_id}/plan/revisions", responses={200: {"model": RevisionsView}, **refusals(404)})
@requires("read")
async def list_revisions(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """List all revisions of the plan in order, each with its author and the feedback that it answers."""
    task = await runtime.tasks.get(task_id, caller)
    found = await _all_revisions(request, task_id, runtime, caller)
    return await make_answer(request, task, lambda: answer({"revisions": [revision_view(one) for one in found]}))


@plans.get("/{task_id}/plan/diff", responses={200: {"model": DiffView}, **refusals(404, 422)})
@requires("read")
async def compare_revisions(
    request: Request, task_id: TaskId, query: Annotated[DiffQuery, Query()], runtime: Service, caller: CurrentCaller
) -> Response:
    """Compare two revisions of the plan."""
    task = await runtime.tasks.get(task_id, caller)
    found = await _all_revisions(request, task_id, runtime, caller)
    return await make_answer(request, task, lambda: answer(diff_view(found, query)))


@plans.post(
    "/{task_id}/preview",
    responses={200: {"model": PlanPreview, "description": "The preview of each step"}, **refusals(404, 409)},
)
@requires("read")
async def preview_plan(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Preview the effect of each step of the current plan, according to its contract. Nothing runs or changes.

    While the plan awaits approval, the sentences tell what its paths on built-in file servers name at the moment.
    """
    task = await runtime.tasks.get(task_id, caller)
    if task.contract is None:
        raise DecisionRefusedError(f"Task {task_id} is {task.status} and has no plan to preview.", task.status)
    at = datetime.now(UTC)
    files = await runtime.files.look(task) if runtime.files else {}
    return await make_answer(request, task, lambda: answer(plan_preview(task, files, at)))


async def _all_revisions(request: Request, task_id: str, runtime: Runtime, caller: Caller) -> list[Revision]:
    async with whole_journals(request):
        return await runtime.tasks.read_revisions(task_id, caller)
