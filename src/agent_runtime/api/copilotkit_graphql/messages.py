"""Messages of CopilotKit, made from the journal of a task: the same ones each time, so that a client knows them."""

import json
from collections.abc import Iterator
from typing import Any

from agent_runtime.api.result_text import describe_kept_plan, describe_resolution
from agent_runtime.api.told_calls import ToldCalls
from agent_runtime.api.views import plan_text, time_of
from agent_runtime.domain import events as ev
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import is_late_evidence
from agent_runtime.domain.values import JsonObject
from agent_runtime.text.escaping import escape_hidden

Message = dict[str, Any]

TASK = "task"
"""The key of an agent's state that the service writes itself: a front end reads it, and cannot change it."""

SUCCESS: dict[str, Any] = {"__typename": "SuccessResponseStatus", "code": "Success"}

_SENT: dict[str, Any] = {"__typename": "SuccessMessageStatus", "code": "Success"}


class Narrator:
    """Tells the events of a task as messages. It remembers the calls, and the last answer of a model."""

    def __init__(self) -> None:
        self._calls = ToldCalls()
        self._epoch = 0
        self._answer: str | None = None

    def tell(self, record: EventRecord) -> Iterator[Message]:
        """Yield the messages of the next event."""
        base: Message = {"id": f"{record.task_id}-{record.seq}", "createdAt": time_of(record.at), "status": _SENT}
        for call_id, text in self._calls.explain_unanswered(record.event):
            yield from self._give_result({**base, "id": f"{base['id']}-{call_id}"}, call_id, text)
        match record.event:
            case ev.PlanProposed() | ev.PlanEdited() | ev.PlanRepinned() as planned:
                yield make_text(
                    record, base["id"], f"Plan, revision {planned.revision}:\n{plan_text(planned.contract.steps)}"
                )
            case ev.PlanRevisionFailed() as kept:
                yield make_text(record, base["id"], describe_kept_plan(kept))
            case ev.ToolCalled() as called if self._calls.announce(called):
                given = json.dumps(called.arguments, ensure_ascii=False)
                yield {
                    **base,
                    "__typename": "ActionExecutionMessageOutput",
                    "id": called.call_id,
                    "name": self._calls.find_tool(called.call_id),
                    "arguments": [given],
                }
            case ev.TaskClaimed() as claimed:
                self._epoch = claimed.epoch
            case ev.ToolReturned() as returned if not is_late_evidence(self._epoch, record):
                yield from self._give_result(base, returned.call_id, returned.result.text)
            case ev.StepResolved() as resolved:
                yield from self._give_result(base, resolved.call_id, describe_resolution(resolved))
            case ev.ModelAnswered(answer=StoredResult() as said, objection=None) as answered:
                self._answer = said.text
                message_id = identify_text(record.task_id, answered.step_id, answered.turn)
                yield make_text(record, message_id, said.text)
            case ev.StepFailed() as failed:
                yield make_text(record, base["id"], f"Step {failed.step_id} failed: {failed.message}")
            case ev.TaskCompleted() as completed if completed.result != self._answer:  # else it has been told
                yield make_text(record, base["id"], completed.result)
            case ev.PlanRejected():
                yield make_text(record, base["id"], "The plan was rejected. Nothing was done.")
            case _:
                pass

    def _give_result(self, base: Message, call_id: str, text: str) -> Iterator[Message]:
        told = self._calls.settle(call_id)
        if told is not None:
            yield {
                **base,
                "__typename": "ResultMessageOutput",
                "actionExecutionId": told,
                "actionName": self._calls.find_tool(told),
                "result": escape_hidden(text, keep="\n\t"),
            }


def identify_text(task_id: str, step_id: str, turn: int) -> str:
    """Return the id of the message with what a model writes for a step in this turn, counted from 1."""
    return f"{task_id}-{step_id}-{turn}"


def make_text(record: EventRecord, message_id: str, text: str) -> Message:
    """Return a text message of the time of this event."""
    base = {"id": message_id, "createdAt": time_of(record.at), "status": _SENT}
    return {
        **base,
        "__typename": "TextMessageOutput",
        "role": "assistant",
        "content": [escape_hidden(text, keep="\n\t")],
    }


def state_message(task: Task, thread: str, agent: str, run_id: str, saved: JsonObject) -> Message:
    """Return the state of the agent now: what a front end has saved, and the task."""
    running = not task.terminal
    steps = task.steps.items()
    node = next((step_id for step_id, state in steps if state.status is StepStatus.RUNNING), None)
    return {
        "__typename": "AgentStateMessageOutput",
        "id": f"{task.task_id}-{task.version}-state",
        "createdAt": time_of(task.updated_at) if task.updated_at else "",
        "status": _SENT,
        "threadId": thread,
        "agentName": agent,
        "nodeName": node or ("planner" if not task.has_begun and running else "__end__"),
        "runId": run_id,
        "active": running,
        "running": running,
        "role": "assistant",
        "state": json.dumps({**saved, TASK: describe_task(task)}, ensure_ascii=False),
    }


def describe_task(task: Task) -> JsonObject:
    """Return the task as a part of the agent's state."""
    steps = task.contract.steps if task.contract else ()
    return {
        "task_id": task.task_id,
        "status": str(task.status),
        "plan_revision": task.plan_revision,
        "plan_digest": task.plan_digest,
        "steps": [
            {"id": step.id, "title": escape_hidden(step.title), "status": str(task.steps[step.id].status)}
            for step in steps
        ],
        "result": task.result,
        "error": {"code": task.error.code, "message": task.error.message} if task.error else None,
    }


def status_of(task: Task) -> dict[str, Any]:
    """Return the status of the answer at the end of a task, or where it waits for a person."""
    if not task.terminal or task.status in {TaskStatus.COMPLETED, TaskStatus.REJECTED}:
        return SUCCESS
    if task.error is not None:
        return failed_status(task.error.message, task.error.code)
    return failed_status(f"The task is {task.status}.", f"task_{task.status}")


def failed_status(message: str, code: str, reason: str = "UNKNOWN_ERROR") -> dict[str, Any]:
    """Return the status of an answer that failed."""
    details = {"description": message, "originalError": {"code": code, "message": message}}
    return {"__typename": "FailedResponseStatus", "code": "Failed", "reason": reason, "details": details}


def as_json(message: Message) -> JsonObject:
    """Return a message in the form of `loadAgentState`."""
    kept = {name: value for name, value in message.items() if name not in {"__typename", "status"}}
    if "content" in kept:
        kept["content"] = "".join(kept["content"])
    if "arguments" in kept:
        kept["arguments"] = json.loads("".join(kept["arguments"]))
    return kept
