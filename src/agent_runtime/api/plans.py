"""Plans over REST before their approval: revise, edit, compare and preview them.

See docs/reference/rest.md.
"""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from agent_runtime.api.bodies import DiffQuery, PlanBody, ReviseRequest
from agent_runtime.api.deps import CurrentCaller, EditedDigests, Service, make_answer, whole_journals
from agent_runtime.api.json_route import JsonRoute
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.shapes import DiffView, PlanPreview, RevisionsView, RevisionView, TaskCreated, TaskView
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer, plan_preview, task_answer, time_of
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Edit, Revise
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import DecisionRefusedError, Fault, InvalidInputError
from agent_runtime.domain.revisions import Revision, diff_revisions, format_diff

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
    return await make_answer(request, task, lambda: answer({"revisions": [_revision(one) for one in found]}))


@plans.get("/{task_id}/plan/diff", responses={200: {"model": DiffView}, **refusals(404, 422)})
@requires("read")
async def compare_revisions(
    request: Request, task_id: TaskId, query: Annotated[DiffQuery, Query()], runtime: Service, caller: CurrentCaller
) -> Response:
    """Compare two revisions of the plan."""
    task = await runtime.tasks.get(task_id, caller)
    found = await _all_revisions(request, task_id, runtime, caller)
    asked = {"from": query.from_, "to": query.to}
    there_are = f"there are 1 to {len(found)}" if found else "there is no plan yet"
    faults = [
        Fault(name, f"There is no revision {number} of this plan; {there_are}.")
        for name, number in asked.items()
        if not 1 <= number <= len(found)
    ]
    if faults:
        raise InvalidInputError(faults)
    return await make_answer(request, task, lambda: answer(_diff(found[query.from_ - 1], found[query.to - 1])))


@plans.post(
    "/{task_id}/preview",
    responses={200: {"model": PlanPreview, "description": "The preview of each step"}, **refusals(404, 409)},
)
@requires("read")
async def preview_plan(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Preview the effect of each step of the current plan, according to its contract. Nothing runs or changes."""
    task = await runtime.tasks.get(task_id, caller)
    if task.contract is None:
        raise DecisionRefusedError(f"Task {task_id} is {task.status} and has no plan to preview.", task.status)
    return await make_answer(request, task, lambda: answer(plan_preview(task)))


async def _all_revisions(request: Request, task_id: str, runtime: Runtime, caller: Caller) -> list[Revision]:
    async with whole_journals(request):
        return await runtime.tasks.read_revisions(task_id, caller)


def _revision(revision: Revision) -> RevisionView:
    return {
        "revision": revision.number,
        "digest": revision.digest,
        "at": time_of(revision.at),
        "by": revision.by,
        "feedback": revision.feedback,
        "plan_object": revision.contract.as_digested(),
    }


def _diff(before: Revision, after: Revision) -> DiffView:
    return {
        "from": before.number,
        "to": after.number,
        "text": format_diff(before, after),
        "changes": [
            {
                "step_id": change.step_id,
                "change": change.kind,
                "fields": {name: {"from": field.before, "to": field.after} for name, field in change.fields.items()},
            }
            for change in diff_revisions(before, after)
        ],
    }
