"""Runs: tasks as `/api/v1/runs` speaks of them, with the tool calls as numbered steps.

See docs/reference/runs.md.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.attention import attention_views
from agent_runtime.api.bodies import Body
from agent_runtime.api.deps import CurrentCaller, RequestKey, Service, make_answer, whole_journals
from agent_runtime.api.json_route import JsonRoute
from agent_runtime.api.openapi import refusals
from agent_runtime.api.problems import problem
from agent_runtime.api.result_text import make_result_text
from agent_runtime.api.scopes import requires
from agent_runtime.api.task_ids import known_form
from agent_runtime.api.views import answer, plan_text, root_path_of, time_of
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain import events as ev
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.contract import MOST_STEPS, Limits
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.preview import preview_steps
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonObject, JsonValue, digest
from agent_runtime.services.task_manager import PAGE_OF_RECORDS, Submission
from agent_runtime.text.escaping import cut, escape_hidden

MAX_STEPS = 10
"""The limit of steps of a run whose request names none."""

RETRIES = 2
"""How often a call of an idempotent tool is repeated after an error: a step has three attempts."""

RunStatus = Literal["pending", "running", "completed", "failed"]

_STATUS_OF: Mapping[TaskStatus, RunStatus] = {
    TaskStatus.PENDING: "pending",
    TaskStatus.AWAITING_APPROVAL: "pending",
    TaskStatus.APPROVED: "running",
    TaskStatus.EXECUTING: "running",
    TaskStatus.NEEDS_ATTENTION: "running",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.REJECTED: "failed",
    TaskStatus.CANCELLED: "failed",
    TaskStatus.EXPIRED: "failed",
}
_ENDED_BECAUSE = {
    TaskStatus.REJECTED: "The plan was rejected.",
    TaskStatus.CANCELLED: "The run was cancelled.",
    TaskStatus.EXPIRED: "Nobody approved the plan in time.",
}

router = APIRouter(prefix="/api/v1", tags=["Runs"], route_class=JsonRoute, strict_content_type=False)


class RunRequest(Body):
    """A new run."""

    # Only described here: the domain checks the prompt.
    prompt: str = Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})
    max_steps: int = Field(default=MAX_STEPS, ge=1, le=MOST_STEPS)


class RunStepResult(TypedDict):
    """The result of one attempt. `output` is the structured output of the tool, or its text if it gave none."""

    success: bool
    output: JsonValue
    error: str | None


class RunStep(TypedDict):
    """One attempt at a tool call. `step_number` counts the steps of the plan, from 1."""

    step_number: int
    tool_name: str
    tool_input: JsonObject
    reasoning: str
    result: RunStepResult
    attempt: int


class RunApproval(TypedDict):
    """The decision that the run waits for. `url` is where to send it; `plan_digest` goes into its body."""

    message: str
    url: str
    plan: str | None
    plan_digest: str | None


class RunView(TypedDict):
    """A run. `approval` is `null` unless the run waits for a person."""

    run_id: str
    status: RunStatus
    steps: list[RunStep]
    result: str | None
    error: str | None
    created_at: str | None
    updated_at: str | None
    approval: RunApproval | None


class ProcessHealth(TypedDict):
    status: str


@router.post(
    "/runs",
    status_code=201,
    responses={201: {"model": RunView, "description": "Created"}, **refusals(400, 413, 415, 422, 503)},
)
@requires("submit")
async def create_run(
    request: Request, body: RunRequest, key: RequestKey, runtime: Service, caller: CurrentCaller
) -> Response:
    """Create a run. It starts by itself if the operator's policy allows its plan, and else waits for approval.

    Requests with the same `Idempotency-Key` and body return the same run.
    """
    submission = Submission(
        prompt=body.prompt,
        approval="auto" if runtime.settings.approval.auto_effects else "manual",
        limits=Limits(max_steps=body.max_steps, retries=RETRIES),
        request_key=key.key,
        request_digest=digest(["run", key.digest]) if key.digest else None,
    )
    task = await runtime.tasks.submit(submission, caller)
    return await _answer(request, runtime, task, caller, 201)


@router.get("/runs/{run_id}", responses={200: {"model": RunView}, **refusals(404, 503)})
@requires("read")
async def get_run(request: Request, run_id: str, runtime: Service, caller: CurrentCaller) -> Response:
    """Return the run with the results of its steps. The id of any task is the id of a run."""
    try:
        task = await runtime.tasks.get(known_form(run_id), caller)
    except TaskNotFoundError as error:
        message = f"Run not found: {escape_hidden(cut(run_id, 100))}"
        return problem(request.scope, 404, message, code=error.code)
    return await _answer(request, runtime, task, caller)


@router.get("/health", responses={200: {"model": ProcessHealth}})
@requires()
async def show_health() -> Response:
    """Report that the process is alive."""
    return answer({"status": "ok"})


async def _answer(request: Request, runtime: Runtime, task: Task, caller: Caller, status: int = 200) -> Response:
    """Return the run; to a caller without the scope `read` only its id, status and times."""
    if not caller.may("read"):
        return answer(make_view(task, (), root_path_of(request), shown=False), status)
    if not task.has_begun:
        return answer(make_view(task, (), root_path_of(request)), status)
    async with whole_journals(request):
        records = await _read_journal(runtime, task, caller)

        def make() -> Response:
            return answer(make_view(task, records, root_path_of(request)), status)

        return await make_answer(request, task, make)


async def _read_journal(runtime: Runtime, task: Task, caller: Caller) -> list[ev.EventRecord]:
    """Return the records of a task up to its version."""
    journal: list[ev.EventRecord] = []
    read = partial(runtime.tasks.records, task.task_id, caller)
    while len(journal) < task.version and (page := await read(len(journal), PAGE_OF_RECORDS)):
        journal += page
    return journal[: task.version]


def make_view(task: Task, journal: Iterable[ev.EventRecord], root_path: str, *, shown: bool = True) -> RunView:
    """Return a task as a run. `shown`: with what only readers of tasks may see."""
    changed = task.journal_change
    error = task.error.message if task.error else _ENDED_BECAUSE.get(task.status)
    if changed:
        error = f"The journal was changed at record {changed.record}: {changed.reason}"
    return {
        "run_id": task.task_id,
        "status": "failed" if changed else _STATUS_OF[task.status],
        "steps": list_steps(task, journal) if shown and not changed else [],
        "result": task.result if shown else None,
        "error": escape_hidden(error, keep="\n\t") if shown and error else None,
        "created_at": time_of(task.created_at) if task.created_at else None,
        "updated_at": time_of(task.updated_at) if task.updated_at else None,
        "approval": _make_approval(task, root_path) if shown and not changed else None,
    }


def _make_approval(task: Task, root_path: str) -> RunApproval | None:
    here = f"{root_path}/v1/tasks/{task.task_id}"
    if task.status is TaskStatus.AWAITING_APPROVAL and task.contract is not None:
        return {
            "message": "The plan waits for approval: POST its digest to this address, or reject it at .../reject.",
            "url": f"{here}/approve",
            "plan": plan_text(task.contract.steps, preview_steps(task)),
            "plan_digest": task.plan_digest,
        }
    if task.status is TaskStatus.NEEDS_ATTENTION:
        question = make_result_text(task, attention_views(task, preview_steps(task)))
        return {"message": question or "A person is asked.", "url": here, "plan": None, "plan_digest": None}
    return None


def list_steps(task: Task, journal: Iterable[ev.EventRecord]) -> list[RunStep]:
    """Return every attempt of the journal that has a result, in the order of the calls.

    The text that the model of an agent step wrote is a step of the tool `agent`.
    """
    made: dict[str, RunStep] = {}
    results: dict[str, RunStepResult] = {}
    plan = {step.id: (number, step) for number, step in enumerate(task.contract.steps if task.contract else (), 1)}

    def add(step_id: str, call_id: str, tool: str, given: JsonObject, attempt: int) -> None:
        number, step = plan[step_id]
        made[call_id] = {
            "step_number": number,
            "tool_name": tool,
            "tool_input": given,
            "reasoning": step.reasoning,
            "result": _PENDING,
            "attempt": attempt,
        }

    for record in journal:
        match record.event:
            case ev.ToolCalled() as called:
                name = f"{called.server}.{called.tool}"
                add(called.step_id, called.call_id, name, called.arguments, called.attempt)
            case ev.ToolReturned() as returned:
                results.setdefault(returned.call_id, _make_result(returned.result))  # a late one changes nothing
            case ev.StepOutcomeUnknown() as unknown:
                results[unknown.call_id] = {"success": False, "output": None, "error": unknown.reason}
            case ev.StepResolved(resolution="done") as resolved:
                results[resolved.call_id] = {"success": True, "output": resolved.output, "error": None}
            case ev.ModelAnswered(answer=StoredResult() as said) as written:
                step = plan[written.step_id][1]
                instruction = step.instruction if isinstance(step, AgentStep) else ""
                call_id = f"{written.step_id} {written.turn}"
                add(written.step_id, call_id, "agent", {"instruction": instruction}, 1)
                results[call_id] = _make_result(said)
            case _:
                pass
    return [{**step, "result": results[call_id]} for call_id, step in made.items() if call_id in results]


_PENDING: RunStepResult = {"success": False, "output": None, "error": None}


def _make_result(result: StoredResult) -> RunStepResult:
    if result.is_error:
        return {"success": False, "output": None, "error": escape_hidden(result.text, keep="\n\t")}
    output: Any = result.text if result.output is None else result.output
    return {"success": True, "output": output, "error": None}
