"""Attempts of language models at the plan of a task, over REST.

See docs/reference/rest.md.
"""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.deps import CurrentCaller, Service, whole_journals
from agent_runtime.api.openapi import refusals
from agent_runtime.api.plan_views import PlanningView, planning_view
from agent_runtime.api.scopes import requires
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer

router = APIRouter(prefix="/v1/tasks", tags=["Plans"])


@router.get("/{task_id}/planning", responses={200: {"model": PlanningView}, **refusals(404, 503)})
@requires("read")
async def list_planning_attempts(
    request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller
) -> Response:
    """List what the language model was asked for the plans of a task, and what it answered."""
    async with whole_journals(request):
        attempts = await runtime.tasks.list_planning_attempts(task_id, caller)
        return await asyncio.to_thread(lambda: answer(planning_view(task_id, attempts)))
