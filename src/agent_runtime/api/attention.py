"""The questions of a task that a person must answer, as JSON and as sentences."""

from collections.abc import Sequence
from typing import Literal

from agent_runtime.api.result_text import ANSWERS, RESOLUTIONS
from agent_runtime.api.shapes import AnyAttentionView, AttentionView, InputView
from agent_runtime.domain.chain import format_time
from agent_runtime.domain.preview import StepPreview, notes_on_names
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import AskedCall, AskedInput, Call, StepState, StepStatus, Task
from agent_runtime.domain.tools import HINTS, Effect, ToolDefinition, tool_key
from agent_runtime.text.escaping import escape_hidden

CALL_ACTIONS = ("approve", "deny")


def attention_views(task: Task, shown: Sequence[StepPreview]) -> list[AnyAttentionView]:
    """Return the questions that a person must answer now; none after a request to cancel."""
    if task.journal_change:
        change = task.journal_change
        return [{"kind": "journal_changed", "record": change.record, "reason": change.reason, "actions": ("delete",)}]
    if task.status is not TaskStatus.NEEDS_ATTENTION or task.cancel_requested:
        return []
    asked = [_attention_view(task, shown, step_id, state) for step_id, state in task.steps.items()]
    return [view for view in asked if view is not None]


def _attention_view(
    task: Task, shown: Sequence[StepPreview], step_id: str, state: StepState
) -> AttentionView | InputView | None:
    if state.question:
        return _input_view(task, step_id, state, state.question)
    kind: Literal["outcome_unknown", "call_approval"]
    call: Call | AskedCall
    actions: tuple[str, ...]
    if state.status is StepStatus.UNKNOWN and state.call:
        kind, call, reason, actions = "outcome_unknown", state.call, state.message, RESOLUTIONS
    elif state.status is StepStatus.ASKING and state.asked:
        kind, call, reason, actions = "call_approval", state.asked, state.asked.reason, CALL_ACTIONS
    else:
        return None
    notes = notes_on_names(task, shown, call)
    key = tool_key(call.server, call.tool)
    definition, policy = task.definitions.get(key), task.contract.policy.get(key) if task.contract else None
    return {
        "kind": kind,
        "step_id": step_id,
        "call_id": call.call_id,
        "server": call.server,
        "tool": call.tool,
        "arguments": call.arguments,
        "arguments_digest": call.arguments_digest,
        "edited_by": state.edited.editor if state.edited else None,
        "input_schema": definition.arguments_schema if definition else {},
        "effect": policy.effect if policy else Effect.UNKNOWN,
        "idempotent": policy is not None and policy.idempotent,
        "hints": _read_hints(definition),
        "asked_at": format_time(state.asked_at) if state.asked_at else None,
        "sent_at": format_time(call.sent_at) if isinstance(call, Call) and call.sent_at else None,
        "attempt": call.attempt if isinstance(call, Call) else 0,
        "reason": " ".join(filter(None, [escape_hidden(reason or "", keep="\n\t"), *notes])),
        "needed_by": _dependents_of(task, step_id),
        "actions": actions,
    }


def _read_hints(definition: ToolDefinition | None) -> dict[str, bool]:
    """Return what the server itself says of a tool, by the names of MCP."""
    said = definition.annotations or {} if definition else {}
    return {hint: said[hint] for hint in HINTS if isinstance(said.get(hint), bool)}


def _input_view(task: Task, step_id: str, state: StepState, asked: AskedInput) -> InputView:
    return {
        "kind": "input",
        "step_id": step_id,
        "call_id": asked.call_id,
        "question_id": asked.question_id,
        "server": asked.server,
        "tool": asked.tool,
        "message": escape_hidden(asked.message, keep="\n\t"),
        "schema": asked.requested_schema,
        "asked_at": format_time(state.asked_at) if state.asked_at else None,
        "sent_at": format_time(state.call.sent_at) if state.call and state.call.sent_at else None,
        "needed_by": _dependents_of(task, step_id),
        "actions": ANSWERS,
    }


def _dependents_of(task: Task, step_id: str) -> list[str]:
    """Return the unfinished steps that need this one, directly or indirectly, in the order of the plan."""
    needs = {step.id: step.needs for step in task.contract.steps} if task.contract else {}
    found = {step_id}
    while more := {name for name in needs if name not in found and found & needs[name]}:
        found |= more
    return [name for name in needs if name in found and name != step_id and not task.steps[name].has_ended]
