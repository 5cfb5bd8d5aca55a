"""Legal journals: events and tasks of the usual course, and random legal steps."""

from random import Random

from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.status import WAITING, TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.tools import (
    BuiltinConfig,
    BuiltinServer,
    StoredResult,
    Tool,
    ToolDefinition,
    ToolPolicy,
    describe_tool,
)
from agent_runtime.domain.values import digest
from agent_runtime.services.ports import TaskStore

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
DEFINITION = ToolDefinition(name="echo", description="Says it again.", inputSchema=SCHEMA)
TOOLS = {"echo": ToolPolicy(open_world=False)}
ARGUMENTS = {"text": "é \u2028 \x00 ${s1.text}"}


def _tool() -> Tool:
    return describe_tool(
        BuiltinServer(id="text", type="builtin", config=BuiltinConfig(server="text"), tools=TOOLS), DEFINITION
    )


def make_contract() -> Contract:
    """Return a contract with two steps, of which the second needs the first."""
    first = ToolStep(id="s1", kind="tool", server="text", tool="echo", arguments={"text": "hello"})
    second = ToolStep(id="s2", kind="tool", server="text", tool="echo", arguments={"text": "${s1.text}"})
    return draw_up(Plan(goal="say it", steps=(first, second)), Limits(), {"text/echo": _tool()}, model=None)


CONTRACT = make_contract()


def task_submitted(
    prompt: str = "say hello", request_key: str | None = None, actor: str = ev.ANONYMOUS
) -> ev.TaskSubmitted:
    return ev.TaskSubmitted(prompt=prompt, request_key=request_key, metadata={"cell": "7"}, actor=actor)


def task_claimed(task: Task) -> ev.TaskClaimed:
    return ev.TaskClaimed(runner="local", epoch=task.epoch + 1)


def plan_proposed(revision: int = 1) -> ev.PlanProposed:
    return ev.PlanProposed(
        revision=revision,
        digest=CONTRACT.digest,
        contract=CONTRACT,
        definitions={"text/echo": DEFINITION},
        planner="rules",
    )


def plan_approved(revision: int = 1) -> ev.PlanApproved:
    return ev.PlanApproved(revision=revision, digest=CONTRACT.digest, actor="ann")


def plan_edited(revision: int) -> ev.PlanEdited:
    definitions = {"text/echo": DEFINITION}
    return ev.PlanEdited(revision=revision, digest=CONTRACT.digest, contract=CONTRACT, definitions=definitions)


def tool_called(step: str, attempt: int = 1) -> ev.ToolCalled:
    return ev.ToolCalled(
        step_id=step,
        call_id=f"call-{step}-{attempt}",
        server="text",
        tool="echo",
        arguments=ARGUMENTS,
        arguments_digest=digest(ARGUMENTS),
        attempt=attempt,
    )


def tool_returned(call_id: str, step: str, *, is_error: bool = False) -> ev.ToolReturned:
    result = StoredResult(text="hello", output={"a": [1, 2.5, None]}, is_error=is_error, size=5)
    return ev.ToolReturned(step_id=step, call_id=call_id, result=result, duration_ms=1.25)


def input_requested(step: str) -> ev.InputRequested:
    called = tool_called(step)
    return ev.InputRequested(
        step_id=step,
        call_id=called.call_id,
        question_id=f"question-{step}",
        server=called.server,
        tool=called.tool,
        message="Sure?",
        requested_schema={"type": "object", "properties": {}},
    )


async def claim(store: TaskStore, task: Task) -> Task:
    return await store.append(task, [task_claimed(task)], epoch=task.epoch + 1)


async def write_executing_task(store: TaskStore, task_id: str) -> Task:
    """Write a task whose first call is open."""
    task = await store.append(Task(task_id), [task_submitted()])
    task = await claim(store, task)
    task = await store.append(task, [plan_proposed()], epoch=task.epoch)
    task = await store.append(task, [plan_approved()])
    task = await claim(store, task)
    return await store.append(task, [ev.StepStarted(step_id="s1", title="one"), tool_called("s1")], epoch=task.epoch)


async def write_cancelled_task(store: TaskStore, task_id: str) -> Task:
    """Write a cancelled task."""
    task = await store.append(Task(task_id), [task_submitted()])
    return await store.append(task, [ev.TaskCancelRequested(), ev.TaskCancelled()])


def some_step(task: Task, random: Random) -> tuple[list[ev.Event], int | None] | None:
    """Return the events of one random legal append, and its epoch; None if the task has ended."""
    if task.terminal:
        return None
    if task.version == 0:
        return [task_submitted()], None
    choices: list[tuple[list[ev.Event], int | None]] = [([event], None) for event in _decisions(task)]
    if task.status not in WAITING or task.cancel_requested:
        choices.append(([task_claimed(task)], task.epoch + 1))
    if not task.cancel_requested:
        if task.status is TaskStatus.PENDING and task.epoch:
            choices.extend([([plan_proposed(task.plan_revision + 1)], task.epoch)] * 4)
        if task.status is TaskStatus.AWAITING_APPROVAL:
            choices.extend(([event], None) for event in _about_the_plan(task.plan_revision))
        if task.status is TaskStatus.EXECUTING:
            choices.extend([(_next_of_run(task), task.epoch)] * 2)
        if not choices or random.random() < 0.02:
            return [ev.TaskCancelRequested()], None
    return random.choice(choices)


def _about_the_plan(revision: int) -> list[ev.Event]:
    digest = CONTRACT.digest
    return [
        *[plan_approved(revision)] * 3,
        ev.PlanRejected(revision=revision, digest=digest),
        ev.PlanRevisionRequested(feedback="shorter\nand \u2028 sweeter", revision=revision, digest=digest),
        plan_edited(revision + 1),
        ev.TaskExpired(revision=revision, digest=digest),
    ]


def _next_of_run(task: Task) -> list[ev.Event]:
    for name, step in task.steps.items():
        if step.status is StepStatus.RUNNING and step.call:
            if step.call.result is not None:
                return [ev.StepCompleted(step_id=name)]
            if step.call.epoch != task.epoch:
                return [ev.StepOutcomeUnknown(step_id=name, call_id=step.call.call_id, reason="the service stopped")]
            return [tool_returned(step.call.call_id, name), ev.StepCompleted(step_id=name)]
        if step.status is StepStatus.PENDING and name == "s2" and task.steps["s1"].status is not StepStatus.COMPLETED:
            return [ev.StepSkipped(step_id=name, reason="it needs s1")]
        if step.status is StepStatus.PENDING:
            return [ev.StepStarted(step_id=name, title=name), tool_called(name)]
        if step.status is StepStatus.FAILED:
            return [ev.TaskFailed(code="outcome_unknown", message="so said a person", step_id=name)]
    return [ev.TaskCompleted(result="hello")]


def _decisions(task: Task) -> list[ev.Event]:
    open_calls = [step for step in task.steps.values() if step.open_call]
    if task.cancel_requested:
        return [] if open_calls else [ev.TaskCancelled(unknown_steps=task.unknown_steps)]
    decisions: list[ev.Event] = []
    for name in task.unknown_steps:
        call = task.steps[name].call
        assert call is not None
        answers: tuple[ev.Resolution, ...] = ("done", "retry", "skip", "fail")
        decisions += [ev.StepResolved(step_id=name, call_id=call.call_id, resolution=answer) for answer in answers]
    return decisions
