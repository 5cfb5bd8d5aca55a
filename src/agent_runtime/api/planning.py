"""Attempts of language models at the plan of a task, over REST.

See docs/reference/rest.md.
"""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.deps import CurrentCaller, Service, whole_journals
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer, time_of
from agent_runtime.domain.planning_attempts import PlanningAttempt

router = APIRouter(prefix="/v1/tasks", tags=["Plans"])


class AttemptMessageView(TypedDict):
    role: str
    content: str


class AttemptFaultView(TypedDict):
    field: str
    message: str


class TokensView(TypedDict):
    input_tokens: int
    output_tokens: int


class PlanningAttemptView(TypedDict):
    """One request for a plan. `outcome` is `planned`, `declined`, `invalid_plan` or the code of a failure.

    `revision` is the number of the plan that was asked for. `cut`: a text was too long and is not shown whole.
    """

    number: int
    revision: int
    at: str
    duration_ms: float
    instructions: str
    messages: list[AttemptMessageView]
    answer: str | None
    outcome: str
    message: str | None
    faults: list[AttemptFaultView]
    usage: TokensView
    cut: bool


class PlanningView(TypedDict):
    """The attempts in order. Numbers count from 1; those that are missing were dropped."""

    task_id: str
    attempts: list[PlanningAttemptView]


@router.get("/{task_id}/planning", responses={200: {"model": PlanningView}, **refusals(404, 503)})
@requires("read")
async def list_planning_attempts(
    request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller
) -> Response:
    """List what the language model was asked for the plans of a task, and what it answered."""
    async with whole_journals(request):
        attempts = await runtime.tasks.list_planning_attempts(task_id, caller)
        return await asyncio.to_thread(
            lambda: answer({"task_id": task_id, "attempts": [_view(*one) for one in attempts]})
        )


def _view(number: int, attempt: PlanningAttempt) -> PlanningAttemptView:
    return {
        "number": number,
        "revision": attempt.revision,
        "at": time_of(attempt.at),
        "duration_ms": attempt.duration_ms,
        "instructions": attempt.instructions,
        "messages": [{"role": one.role, "content": one.content} for one in attempt.messages],
        "answer": attempt.answer,
        "outcome": attempt.outcome,
        "message": attempt.message,
        "faults": [{"field": one.field, "message": one.message} for one in attempt.faults],
        "usage": {"input_tokens": attempt.usage.input_tokens, "output_tokens": attempt.usage.output_tokens},
        "cut": attempt.cut,
    }
