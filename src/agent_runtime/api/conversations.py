"""The conversations with language models in agent steps, over REST.

See docs/reference/rest.md.
"""

from collections.abc import Iterator
from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.deps import CurrentCaller, Service, make_answer, whole_journals
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.task_ids import TaskId
from agent_runtime.api.views import answer
from agent_runtime.config import LimitSettings
from agent_runtime.domain.conversation import INSTRUCTIONS, Exchange, offer_tools, read_exchanges
from agent_runtime.domain.errors import ReferenceFailedError
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.values import JsonObject

router = APIRouter(prefix="/v1/tasks", tags=["Tasks"])


class FunctionView(TypedDict):
    """A tool as the model is offered it."""

    name: str
    description: str


class TurnView(TypedDict):
    """A question to the model, as added to the conversation, and its answer, in the words of the Responses API.

    `answered` is empty while the model has not answered.
    """

    turn: int
    asked: list[JsonObject]
    answered: list[JsonObject]


class ConversationView(TypedDict):
    step_id: str
    functions: list[FunctionView]
    turns: list[TurnView]


class ConversationsView(TypedDict):
    """The conversations with models in the agent steps that have begun. All begin with the same `instructions`."""

    task_id: str
    instructions: str
    conversations: list[ConversationView]


@router.get("/{task_id}/conversations", responses={200: {"model": ConversationsView}, **refusals(404, 503)})
@requires("read")
async def list_conversations(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """List what the language model was asked in the agent steps of the task, and what it answered."""
    async with whole_journals(request):
        task = await runtime.tasks.get(task_id, caller)
        limits = runtime.settings.limits
        return await make_answer(request, task, lambda: answer(conversations_view(task, limits)))


def conversations_view(task: Task, limits: LimitSettings) -> ConversationsView:
    """Return the conversations of the task, as the journal has them. `limits` are those of results and arguments."""
    steps = task.contract.steps if task.contract else ()
    agents = [step for step in steps if isinstance(step, AgentStep)]
    begun = [step for step in agents if task.steps[step.id].started_at is not None]
    return {
        "task_id": task.task_id,
        "instructions": INSTRUCTIONS,
        "conversations": [
            {
                "step_id": step.id,
                "functions": [
                    {"name": tool.name, "description": tool.description} for tool in offer_tools(step, task.definitions)
                ],
                "turns": [
                    {"turn": number, "asked": list(exchange.asked), "answered": list(exchange.answered)}
                    for number, exchange in enumerate(_read_asked(task, step, limits), 1)
                ],
            }
            for step in begun
        ],
    }


def _read_asked(task: Task, step: AgentStep, limits: LimitSettings) -> Iterator[Exchange]:
    """Yield the exchanges of a step whose question was asked. A step whose instruction has no value asked none."""
    state = task.steps[step.id]
    is_open = state.status is StepStatus.RUNNING or (state.code or "").startswith("model_")
    with suppress(ReferenceFailedError):
        for exchange in read_exchanges(task, step, limits.stored_result_bytes, limits.argument_bytes):
            if exchange.answered or (is_open and exchange.is_whole):
                yield exchange
