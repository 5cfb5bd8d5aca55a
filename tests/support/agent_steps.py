"""Values for tests of agent steps: a plan, the events of its task, and the task after them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedModel
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, StoredResult, ToolDefinition, describe_tool
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import digest

AT = datetime(2026, 11, 21, tzinfo=UTC)
MODEL = PinnedModel(entry="openai", endpoints=("http://model",), model="m")
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
SERVER = BuiltinServer(
    id="f",
    type="builtin",
    config=BuiltinConfig(server="text"),
    tools={
        "read": {"effect": "read", "idempotent": True, "open_world": False},
        "write": {"effect": "write", "open_world": False},
        "wipe": {"effect": "destructive", "open_world": False},
    },
)
TOOLS = {
    f"f/{name}": describe_tool(SERVER, ToolDefinition(name=name, inputSchema=SCHEMA))
    for name in ("read", "write", "wipe")
}
LOOK = {"id": "look", "kind": "tool", "server": "f", "tool": "read", "arguments": {"x": 1}}
AGENT = {
    "id": "do",
    "kind": "agent",
    "instruction": "Do it with ${look.text}.",
    "tools": [{"server": "f", "tool": "read", "max_calls": 2}, {"server": "f", "tool": "write"}],
}
LAST = {"id": "last", "kind": "tool", "server": "f", "tool": "wipe", "depends_on": ["do"]}


def contract_of(*steps: dict[str, Any], budget: Budget | None = None) -> Contract:
    limits = Limits(budget=budget or Budget())
    return draw_up(Plan.model_validate({"goal": "g", "steps": steps}), limits, TOOLS, model=MODEL)


def after(task: Task, *events: ev.Event) -> Task:
    """Return the task after these events. Events of a run get its epoch."""
    for event in events:
        epoch = event.epoch if isinstance(event, ev.TaskClaimed) else task.epoch if event.writer == "run" else None
        at = AT + timedelta(seconds=task.version)
        task = evolve(task, ev.make_record("t", task.version + 1, epoch, at, event))
    return task


def plan_proposed(contract: Contract) -> ev.PlanProposed:
    definitions = {key: tool.definition for key, tool in TOOLS.items() if key in contract.pins}
    return ev.PlanProposed(
        revision=1, digest=contract.digest, contract=contract, definitions=definitions, planner="openai"
    )


def make_proposed_task(contract: Contract) -> Task:
    submitted = ev.TaskSubmitted(prompt="p", limits=contract.limits)
    return after(Task("t"), submitted, ev.TaskClaimed(runner="r", epoch=1), plan_proposed(contract))


def make_executing_task(contract: Contract, approver: str = ev.ANONYMOUS) -> Task:
    task = make_proposed_task(contract)
    approved = ev.PlanApproved(revision=1, digest=contract.digest, actor=approver)
    return after(task, approved, ev.TaskClaimed(runner="r", epoch=2))


def step_started(step_id: str) -> ev.StepStarted:
    return ev.StepStarted(step_id=step_id, title="t")


def tool_called(
    step_id: str, tool: str, arguments: dict[str, Any], call_id: str = "c", *, attempt: int = 1, **place: int
) -> ev.ToolCalled:
    return ev.ToolCalled(
        step_id=step_id,
        call_id=call_id,
        server="f",
        tool=tool,
        arguments=arguments,
        arguments_digest=digest(arguments),
        attempt=attempt,
        **place,
    )


def tool_returned(step_id: str, call_id: str = "c", text: str = "fine") -> ev.ToolReturned:
    return ev.ToolReturned(step_id=step_id, call_id=call_id, result=StoredResult(text=text), duration_ms=1)


def model_calls(*wanted: tuple[str, Any]) -> tuple[ev.ModelCall, ...]:
    return tuple(
        ev.ModelCall(call_id=f"m{index}", name=name, arguments=given if isinstance(given, str) else json.dumps(given))
        for index, (name, given) in enumerate(wanted)
    )


def model_answered(
    turn: int, *wanted: tuple[str, Any], text: str | None = None, step_id: str = "do"
) -> ev.ModelAnswered:
    calls: Sequence[ev.ModelCall] = model_calls(*wanted)
    return ev.ModelAnswered(
        step_id=step_id,
        turn=turn,
        items=({"type": "message", "turn": turn},),
        calls=tuple(calls),
        answer=None if calls else StoredResult(text=text or "done"),
        usage=Usage(10, 5),
    )


def begin_journal(contract: Contract) -> tuple[ev.Event, ...]:
    """Return the events of a task until the agent step `do` of its approved plan has started, after `look`."""
    return (
        ev.TaskSubmitted(prompt="p"),
        ev.TaskClaimed(runner="r", epoch=1),
        plan_proposed(contract),
        ev.PlanApproved(revision=1, digest=contract.digest),
        ev.TaskClaimed(runner="r", epoch=2),
        step_started("look"),
        tool_called("look", "read", {"x": 1}, "c0"),
        tool_returned("look", "c0"),
        ev.StepCompleted(step_id="look"),
        step_started("do"),
    )


def edit_journal(contract: Contract) -> tuple[ev.Event, ...]:
    """Return the events of a task in which a person edits the call of `look`, and that of the model of `do`.

    Records 7 and 16 are the approvals, 10 and 18 the calls.
    """
    edited, place = {"actor": "ann", "scopes": ("approve", "submit")}, {"turn": 1, "index": 0}
    return (
        *begin_journal(contract)[:5],
        call_asked("look", "read", {"x": 1}, "c0"),
        call_edited("look", {"x": 1}, {"x": 2}, "c0", **edited),
        ev.TaskClaimed(runner="r", epoch=3),
        step_started("look"),
        tool_called("look", "read", {"x": 2}, "c0"),
        tool_returned("look", "c0"),
        ev.StepCompleted(step_id="look"),
        step_started("do"),
        model_answered(1, ("f__write", {"x": 8})),
        call_asked("do", "write", {"x": 8}, "c1", **place),
        call_edited("do", {"x": 8}, {"x": 9}, "c1", **edited),
        ev.TaskClaimed(runner="r", epoch=4),
        tool_called("do", "write", {"x": 9}, "c1", **place),
        tool_returned("do", "c1"),
    )


def call_asked(
    step_id: str, tool: str, arguments: dict[str, Any], call_id: str, **place: int
) -> ev.CallApprovalRequested:
    named = {"step_id": step_id, "call_id": call_id, "server": "f", "tool": tool, "reason": "r"}
    return ev.CallApprovalRequested(**named, arguments=arguments, arguments_digest=digest(arguments), **place)


def call_edited(
    step_id: str, shown: dict[str, Any], edited: dict[str, Any], call_id: str, **signed: Any
) -> ev.CallApproved:
    return ev.CallApproved(
        step_id=step_id,
        call_id=call_id,
        arguments_digest=digest(shown),
        edited_arguments=edited,
        edited_digest=digest(edited),
        **signed,
    )


def make_task_after_look(contract: Contract) -> Task:
    """Return a task whose next step is the agent step `do`."""
    look = tool_called("look", "read", {"x": 1})
    done = ev.StepCompleted(step_id="look")
    return after(make_executing_task(contract), step_started("look"), look, tool_returned("look"), done)
