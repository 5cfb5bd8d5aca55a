"""Tasks as callers see them: plain dictionaries, encoded once. mypy checks their shapes, not the running service."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.api.attention import attention_views
from agent_runtime.api.auth import caller_of
from agent_runtime.api.rerun_views import rerun_lines, rerun_view
from agent_runtime.api.result_text import make_result_text
from agent_runtime.api.shapes import (
    ErrorView,
    PageView,
    PlanPreview,
    PreviewView,
    RevisionFailedView,
    StepView,
    SummaryView,
    TaskCreated,
    TaskView,
    WaitingView,
)
from agent_runtime.domain.conditions import MOST_CHARACTERS
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.present_files import PresentFiles
from agent_runtime.domain.preview import StepPreview, notes_on_names, preview_steps
from agent_runtime.domain.summaries import Page, TaskSummary
from agent_runtime.domain.task import RevisionFailure, StepState, StepStatus, Task, Waiting
from agent_runtime.domain.values import JsonValue
from agent_runtime.text.escaping import clear_name, clear_title, escape_hidden, exact_line, one_line

_LONGEST_PREVIEW = 500
LONGEST_ARGUMENT = 120
LONGEST_INSTRUCTION = 4000
_LONGEST_CONDITION = 10 * MOST_CHARACTERS  # the whole text, even if every character is escaped
_LONGEST_REASON = 8000


def answer(body: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(to_json(body), status, media_type="application/json")


def task_answer(task: Task, request: Request, status: int = 200) -> Response:
    """Return the task; to a caller without the scope `read` only its id, status and links.

    The `ETag` is the digest of the plan, which an edit names in `If-Match`.
    """
    if not caller_of(request.scope).may("read"):
        return answer(created_view(task, root_path_of(request)), status)
    response = answer(task_view(task), status)
    if task.plan_digest is not None:
        response.headers["ETag"] = f'"{task.plan_digest}"'
    return response


def root_path_of(request: Mapping[str, Any]) -> str:
    """Return the path under which a proxy serves us (`server.root_path`): the beginning of every link.

    `request` is a request, or the ASGI scope of one.
    """
    return str(request.get("root_path", ""))


def address_of(request: Request) -> str:
    """Return the URL at which the client reaches us, without a slash at its end.

    Who calls says it, and only they are told it: the scheme is that of `X-Forwarded-Proto`, if a proxy has set it.
    """
    given = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    scheme = given if given in {"http", "https"} else request.url.scheme
    return f"{scheme}://{request.headers['host']}{root_path_of(request)}"


def page_of(address: str, task_id: str) -> str:
    """Return the URL of the page that shows a task, where a person decides. `address` is that of the service."""
    return f"{address}/#/tasks/{task_id}"


def time_of(at: datetime) -> str:
    """Format a time by RFC 3339, in UTC, to the microsecond."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:-6] + "Z"


def created_view(task: Task, root_path: str) -> TaskCreated:
    here = f"{root_path}/v1/tasks/{task.task_id}"
    return {
        "task_id": task.task_id,
        "status": task.status,
        "links": {
            "self": here,
            "approve": f"{here}/approve",
            "reject": f"{here}/reject",
            "cancel": f"{here}/cancel",
            "stream": f"{here}/stream",
            "events": f"{here}/events",
        },
    }


def task_view(task: Task) -> TaskView:
    steps = task.contract.steps if task.contract else ()
    shown = preview_steps(task)
    notes = [*rerun_lines(task), *notes_on_names(task, shown)]
    attention = attention_views(task, shown)
    return {
        "task_id": task.task_id,
        "prompt": task.prompt,
        "status": task.status,
        "terminal": task.terminal,
        "plan": "\n".join([plan_text(steps, shown), *notes]) if steps else None,
        "plan_notes": notes,
        "result": make_result_text(task, attention),
        "plan_object": task.contract.as_digested() if task.contract else None,
        "plan_revision": task.plan_revision,
        "plan_digest": task.plan_digest,
        "revision_failed": _revision_failed_view(task.revision_failure) if task.revision_failure else None,
        "steps": [_step(step, task.steps[step.id], preview) for step, preview in zip(steps, shown, strict=True)],
        "approvals": [
            {
                "who": approval.actor,
                "when": time_of(approval.at),
                "digest": approval.digest,
                "decision": approval.decision,
                "comment": approval.comment,
                "step_id": approval.step_id,
                "edited_digest": approval.edited_digest,
            }
            for approval in task.approvals
        ],
        "attention": attention,
        "waiting_for": _waiting_view(task.waiting) if task.waiting else None,
        "cancel_requested": task.cancel_requested,
        "error": _error(task.error.code, task.error.message, task.error.step_id) if task.error else None,
        "rerun_of": rerun_view(task),
        "metadata": task.metadata,
        "thread": task.thread,
        "usage": {
            "input_tokens": task.usage.input_tokens,
            "output_tokens": task.usage.output_tokens,
            "tool_calls": task.tool_calls,
        },
        "created_at": time_of(task.created_at) if task.created_at else None,
        "updated_at": time_of(task.updated_at) if task.updated_at else None,
    }


def _waiting_view(waiting: Waiting) -> WaitingView:
    return {
        "kind": waiting.kind,
        "name": waiting.name,
        "reason": escape_hidden(waiting.reason, keep="\n\t"),
        "attempt": waiting.attempt,
        "since": time_of(waiting.since),
        "next_try_at": time_of(waiting.next_try_at),
        "gives_up_at": time_of(waiting.gives_up_at),
    }


def _revision_failed_view(failure: RevisionFailure) -> RevisionFailedView:
    return {
        "feedback": failure.feedback,
        "code": failure.code,
        "message": escape_hidden(failure.message, keep="\n\t"),
    }


def _error(code: str, message: str, step_id: str | None) -> ErrorView:
    return {"code": code, "message": escape_hidden(message, keep="\n\t"), "step_id": step_id}


def plan_preview(task: Task, files: PresentFiles, at: datetime) -> PlanPreview:
    """Return the preview of the plan. `files`: what its paths named at the time `at`, as far as it is known."""
    return {
        "task_id": task.task_id,
        "plan_revision": task.plan_revision,
        "plan_digest": task.plan_digest,
        "as_of": time_of(at) if files else None,
        "steps": [{"step_id": preview.step_id, **preview_view(preview)} for preview in preview_steps(task, files)],
    }


def preview_view(preview: StepPreview) -> PreviewView:
    return {
        "sentence": preview.words.sentence,
        "effect": preview.effect,
        "likely_effect": preview.words.effect,
        "effect_text": preview.words.effect_text,
        "idempotent": preview.idempotent,
        "touches": [
            {
                "server": touch.server,
                "tool": touch.tool,
                "argument": touch.argument,
                "value": touch.value,
                "resolved": touch.resolved,
            }
            for touch in preview.touches
        ],
        "waits_on": preview.waits_on,
        "asks": _visible_reason(preview.asks),
        "covers": _visible_reason(preview.covers),
    }


def _visible_reason(reason: str | None) -> str | None:
    return None if reason is None else escape_hidden(reason)


def _step(step: ToolStep | AgentStep, state: StepState, preview: StepPreview) -> StepView:
    server, tool = (step.server, step.tool) if isinstance(step, ToolStep) else (None, None)
    failed = state.status in {StepStatus.FAILED, StepStatus.UNKNOWN}
    return {
        "id": step.id,
        "title": step.title,
        "kind": step.kind,
        "server": server,
        "tool": tool,
        "status": state.status,
        "started_at": time_of(state.started_at) if state.started_at else None,
        "ended_at": time_of(state.ended_at) if state.ended_at else None,
        "attempts": state.call.attempt if state.call else 0,
        "output": _preview(state),
        "note": state.note,
        "error": _error(state.code or state.status, state.message or "", step.id) if failed else None,
        "preview": preview_view(preview),
    }


def _preview(state: StepState) -> str | None:
    if state.result is None:
        return None
    text = state.result.text
    return text if len(text) <= _LONGEST_PREVIEW else text[: _LONGEST_PREVIEW - 1] + "…"


def plan_text(steps: Iterable[ToolStep | AgentStep], shown: Iterable[StepPreview] = ()) -> str:
    r"""Return the plan as numbered lines: `1. Read the notes — filesystem.read_file(path="notes.txt")`.

    The calls that are approved with the plan follow. Characters that hide or reorder text are escaped: a file name is
    shown as `report\u202egpj.txt`.
    """
    lines = [f"{number}. {_step_text(step)}" for number, step in enumerate(steps, 1)]
    covered = [
        f"- step {number}, although {exact_line(preview.covers, _LONGEST_REASON)}"
        for number, preview in enumerate(shown, 1)
        if preview.covers
    ]
    return "\n".join([*lines, *([_COVERED, *covered] if covered else [])])


_COVERED = "The approval of this plan includes these calls, which are not shown again before they are sent:"


def _step_text(step: ToolStep | AgentStep) -> str:
    text = _action_text(step) + (" — preapproved" if step.preapproved else "")
    return text if step.when is None else f"{text} — only when {exact_line(step.when, _LONGEST_CONDITION)}"


def _action_text(step: ToolStep | AgentStep) -> str:
    title = clear_title(one_line(step.title, 200))
    if isinstance(step, AgentStep):
        names = ", ".join(_allowed_text(allowed) for allowed in step.tools) or "no tools"
        instruction = exact_line(json.dumps(step.instruction, ensure_ascii=False), LONGEST_INSTRUCTION)
        return f"{title} — agent {instruction} ({names}; at most {step.max_turns} turns)"
    arguments = ", ".join(
        f"{exact_line(clear_name(name), 60)}={_argument(value)}" for name, value in step.arguments.items()
    )
    call = f"{escape_hidden(step.server)}.{exact_line(clear_name(step.tool), 100)}({arguments})"
    return call if title == f"{step.server}.{step.tool}" else f"{title} — {call}"


def _allowed_text(allowed: AllowedTool) -> str:
    times = f" at most {allowed.max_calls} times" if allowed.max_calls > 1 else ""
    return exact_line(f"{allowed.server}.{clear_name(allowed.tool)}", 200) + times


def _argument(value: JsonValue) -> str:
    return exact_line(json.dumps(value, ensure_ascii=False), LONGEST_ARGUMENT)


def summary_view(task: TaskSummary) -> SummaryView:
    return {
        "task_id": task.task_id,
        "status": task.status,
        "terminal": task.terminal,
        "prompt": task.prompt,
        "plan_revision": task.plan_revision,
        "cancel_requested": task.cancel_requested,
        "metadata": task.metadata,
        "thread": task.thread,
        "created_at": time_of(task.created_at),
        "updated_at": time_of(task.updated_at),
    }


def page_view(page: Page) -> PageView:
    return {"tasks": [summary_view(task) for task in page.tasks], "next_cursor": page.next_cursor}


def record_json(record: EventRecord, *, with_epoch: bool = False) -> str:
    """Return the record as JSON. Its data is inserted as it was encoded when it was written."""
    epoch = f'"epoch":{json.dumps(record.epoch)},' if with_epoch else ""
    head = f'{{"seq":{record.seq},"task_id":{json.dumps(record.task_id)},"type":"{record.type}",'
    return f'{head}"at":"{time_of(record.at)}",{epoch}"data":{record.data}}}'
