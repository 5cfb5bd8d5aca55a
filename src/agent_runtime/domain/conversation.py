"""The conversation of an agent step: instruction, answers, and results of tools, marked as data."""

import json
from collections.abc import Mapping

from agent_runtime.domain.events import Objection
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.references import as_text, resolve, text_of
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonObject, JsonValue, digest_of_bytes

_MOST_SHOWN = 100_000
"""The maximum length of a tool's or an earlier step's text in the conversation, in characters."""

_OBJECTIONS: Mapping[Objection, str] = {
    "call_as_text": "You wrote a call as text, so nothing was called. Make it with the function calls of this API.",
    "only_thoughts": "Your answer holds nothing but thoughts. Answer with the result of the step as plain text.",
}


def conversation(task: Task, step: AgentStep, result_bytes: int, argument_bytes: int) -> list[JsonObject]:
    """Return the conversation so far. It depends on the journal alone, so it is the same after a restart.

    Results above `result_bytes` were cut and cannot be referenced. `argument_bytes`: the limit of the resolved
    instruction. Raises: ReferenceFailedError.
    """

    def fence_value(value: JsonValue, source: str) -> str:
        return fence(_shorten(as_text(value)), source, task.task_id)

    instruction = resolve(
        step.instruction, task.results, result_bytes, dress=fence_value, argument_bytes=argument_bytes
    )
    items: list[JsonObject] = [{"role": "user", "content": instruction}]
    for turn in task.steps[step.id].turns:
        items.extend(turn.items)
        if turn.objection is not None:
            items.append({"role": "user", "content": _OBJECTIONS[turn.objection]})
        items.extend(
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": _show_result(reply, call.name, task.task_id),
            }
            for call, reply in zip(turn.calls, turn.replies, strict=True)
        )
    return items


def fence(text: str, source: str, task_id: str) -> str:
    """Put text that is data between marks that it cannot contain: their token is derived from the text and the task.

    The marks are the same after a restart. The author of the text cannot forge them without knowing the task's id.
    """
    token = digest_of_bytes(f"{task_id}\n{text}".encode("utf-8", "replace"))[-16:]
    return f"<data {token} from={json.dumps(source)}>\n{text}\n</data {token}>"


def _show_result(result: StoredResult, source: str, task_id: str) -> str:
    text = text_of(result)
    kind = "error of " if result.is_error else ""
    note = f"\n(of {result.size} bytes the first part)" if result.cut else ""
    return fence(_shorten(text) + note, kind + source, task_id)


def _shorten(text: str) -> str:
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[:_MOST_SHOWN]}\n(of {len(text)} characters the first {_MOST_SHOWN})"
