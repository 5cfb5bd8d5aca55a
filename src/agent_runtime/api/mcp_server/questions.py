"""The questions of a task to a person, as MCP elicitations, and the decisions that their answers are.

The key of a question names what is decided, by its digest. An answer counts only while exactly that question is open.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import ElicitResult

from agent_runtime.api.attention import attention_views
from agent_runtime.api.rerun_views import rerun_lines
from agent_runtime.api.result_text import RESOLUTIONS, describe_failed_revision
from agent_runtime.api.shapes import AttentionView, InputView
from agent_runtime.api.views import LONGEST_ARGUMENT, LONGEST_INSTRUCTION, plan_text
from agent_runtime.domain.approval import Answer, Approve, ApproveCall, Decision, DenyCall, Reject, Resolve
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.preview import notes_on_names, preview_steps
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.text.escaping import clear_name, cut, escape_hidden, exact_line, one_line

LONGEST_QUESTION = 16_000
"""Characters. What takes more to show whole is decided on the page or in a terminal, not in a dialog."""

_LONGEST_VALUE = 4000
_LONGEST_COMMENT = 4096

Content = Mapping[str, Any]


class UnclearAnswerError(Exception):
    """The answer names no decision; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a person: its text, the schema of the answer, and the decision that an answer is.

    `decide` returns None if the answer leaves the question open. It raises: UnclearAnswerError.
    """

    message: str
    schema: dict[str, Any]
    decide: Callable[[ElicitResult], Decision | None]


def open_questions(task: Task) -> dict[str, Question]:
    """Return the open questions of a task by their keys, without those that are too long for a dialog."""
    if task.cancel_requested or task.journal_change:
        return {}
    if task.status is TaskStatus.AWAITING_APPROVAL:
        question = _ask_for_plan(task)
        return {f"plan:{task.plan_digest}": question} if question else {}
    found: dict[str, Question] = {}
    for view in attention_views(task, preview_steps(task)):
        if view["kind"] == "input":
            key, question = f"input:{view['question_id']}", _ask_for_input(view)
        elif view["kind"] == "call_approval":
            key, question = f"call:{view['call_id']}:{view['arguments_digest']}", _ask_for_call(view)
        elif view["kind"] == "outcome_unknown":
            key, question = f"unknown:{view['call_id']}", _ask_for_outcome(view)
        else:
            continue
        if question:
            found[key] = question
    return found


def _make_choice(*names: str, title: str) -> dict[str, Any]:
    comment = {"type": "string", "title": "Comment (optional)", "maxLength": _LONGEST_COMMENT}
    decision = {"type": "string", "title": title, "enum": list(names)}
    return {"type": "object", "properties": {"decision": decision, "comment": comment}, "required": ["decision"]}


def _read_choice(result: ElicitResult, *names: str) -> tuple[str, str | None]:
    """Return the decision and the comment of an accepted form. Raises: UnclearAnswerError."""
    content: Content = result.content or {}
    unknown = sorted(content.keys() - {"decision", "comment"})
    if unknown:
        raise UnclearAnswerError(
            f"The form has no field {cut(unknown[0], 40)!r}, so nothing is decided. Edit a plan or the arguments of a "
            "call on the page, or in a terminal."
        )
    decision, comment = content.get("decision"), content.get("comment") or None
    if decision not in names:
        raise UnclearAnswerError(
            f"The answer has no 'decision' of {', '.join(map(repr, names))}, so nothing is decided."
        )
    if comment is not None and (not isinstance(comment, str) or len(comment) > _LONGEST_COMMENT):
        raise UnclearAnswerError(f"The comment must be a text of at most {_LONGEST_COMMENT} characters.")
    return str(decision), comment


def _ask_for_plan(task: Task) -> Question | None:
    """Return the question whether the plan may run; None if it cannot be shown whole."""
    lines = list(_list_plan_lines(task))
    text = "\n".join(lines)
    if not lines or len(text) > LONGEST_QUESTION:
        return None
    digest = task.plan_digest

    def decide(result: ElicitResult) -> Decision | None:
        if result.action == "cancel":
            return None
        if result.action == "decline":
            return Reject(reason="Declined in the MCP client.")
        decision, comment = _read_choice(result, "approve", "reject")
        return Approve(digest=digest, comment=comment) if decision == "approve" else Reject(reason=comment)

    return Question(text, _make_choice("approve", "reject", title="May this plan run?"), decide)


def _list_plan_lines(task: Task) -> Iterator[str]:
    """Yield the plan with every argument whole; nothing if a part of it is too long to be shown."""
    contract = task.contract
    if contract is None or any(
        _is_too_long(step.instruction) for step in contract.steps if isinstance(step, AgentStep)
    ):
        return
    long: list[tuple[int, str, str]] = []
    for number, step in enumerate(contract.steps, 1):
        for name, value in ({} if isinstance(step, AgentStep) else step.arguments).items():
            text = escape_hidden(json.dumps(value, ensure_ascii=False))
            if len(text) > _LONGEST_VALUE:
                return
            if len(text) > LONGEST_ARGUMENT:
                long.append((number, name, text))
    shown = preview_steps(task)
    if task.revision_failure:
        yield describe_failed_revision(task.revision_failure)
    yield f"Should this plan of task {task.task_id} run?"
    yield f"Task: {one_line(task.prompt, 1000)}"
    yield ""
    yield plan_text(contract.steps, shown)
    yield ""
    if long:
        yield "Arguments that are cut above:"
        yield from (f"- step {number}: {clear_name(name)}={text}" for number, name, text in long)
    for number, preview in enumerate(shown, 1):
        asks = f"; a person is asked before the call: {preview.asks}" if preview.asks else ""
        yield f"Step {number}: {preview.effect}{escape_hidden(asks)}"
    yield from rerun_lines(task)
    yield from notes_on_names(task, shown)
    yield f"Revision {task.plan_revision}, plan digest {task.plan_digest}"


def _is_too_long(instruction: str) -> bool:
    return len(escape_hidden(json.dumps(instruction, ensure_ascii=False))) > LONGEST_INSTRUCTION


def _ask_for_call(view: AttentionView) -> Question | None:
    """Return the question whether the call may be sent; None if its arguments cannot be shown whole."""
    arguments = escape_hidden(json.dumps(view["arguments"], ensure_ascii=False, indent=1), keep="\n")
    text = (
        f"May step {view['step_id']} call {_name_tool(view)}?\n{view['reason']}\n\nArguments: {arguments}\n"
        f"{_describe_dependents(view)}Digest of the arguments: {view['arguments_digest']}"
    )
    if len(text) > LONGEST_QUESTION:
        return None
    call_id, digest = view["call_id"], view["arguments_digest"]

    def decide(result: ElicitResult) -> Decision | None:
        if result.action == "cancel":
            return None
        if result.action == "decline":
            return DenyCall(call_id=call_id, arguments_digest=digest, comment="Declined in the MCP client.")
        decision, comment = _read_choice(result, "approve", "deny")
        kind = ApproveCall if decision == "approve" else DenyCall
        return kind(call_id=call_id, arguments_digest=digest, comment=comment)

    return Question(text, _make_choice("approve", "deny", title="May this call be sent?"), decide)


def _ask_for_outcome(view: AttentionView) -> Question | None:
    arguments = escape_hidden(json.dumps(view["arguments"], ensure_ascii=False, indent=1), keep="\n")
    text = (
        f"The outcome of a call of step {view['step_id']} to {_name_tool(view)} is unknown.\n{view['reason']}\n\n"
        f"Arguments: {arguments}\n{_describe_dependents(view)}"
        "Find out if it took effect. done: it did; retry: send it again; skip: go on without it; fail: end the task."
    )
    if len(text) > LONGEST_QUESTION:
        return None
    step_id, call_id = view["step_id"], view["call_id"]

    def decide(result: ElicitResult) -> Decision | None:
        if result.action != "accept":
            return None
        decision, comment = _read_choice(result, *RESOLUTIONS)
        fields = {"step_id": step_id, "call_id": call_id, "resolution": decision, "comment": comment}
        return Resolve.model_validate(fields)

    return Question(text, _make_choice(*RESOLUTIONS, title="What became of the call?"), decide)


def _ask_for_input(view: InputView) -> Question | None:
    text = f"The server {escape_hidden(view['server'])} asks in step {view['step_id']}:\n{view['message']}"
    if len(text) > LONGEST_QUESTION:
        return None
    question_id = view["question_id"]

    def decide(result: ElicitResult) -> Decision | None:
        if result.action == "cancel":
            return None
        if result.action == "decline":
            return Answer(question_id=question_id, action="decline")
        return Answer(question_id=question_id, action="accept", content=dict(result.content or {}))

    return Question(text, dict(view["schema"]), decide)


def _name_tool(view: AttentionView) -> str:
    return exact_line(f"{view['server']}.{clear_name(view['tool'])}", 200)


def _describe_dependents(view: AttentionView) -> str:
    return f"Steps that need it: {', '.join(view['needed_by'])}.\n" if view["needed_by"] else ""
