"""Questions of a server to the user during a call (MCP elicitation), and the validation of answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent_runtime.domain.drafting import argument_faults
from agent_runtime.domain.errors import Fault
from agent_runtime.domain.events import AnswerAction
from agent_runtime.domain.question_forms import list_names, read_form
from agent_runtime.domain.values import JsonObject, JsonValue, canonical, is_deeper_than
from agent_runtime.text.escaping import is_blank

MOST_QUESTIONS = 16
"""The number of questions that a server may ask in one call. Further questions are declined at once."""

_MOST_CHARACTERS = 4000
_MOST_CONTENT_BYTES = 64 * 1024


class UnreadableQuestionError(Exception):
    """The question of a server is malformed or not supported; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question for a person: a message, and the schema of an object with simple fields."""

    message: str
    requested_schema: JsonObject


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a question, as its server gets it. `content` goes with `accept` only."""

    action: AnswerAction
    content: JsonObject | None = None


DECLINED = Reply("decline")
"""The reply to a question that nobody can answer."""


def read_question(params: Mapping[str, JsonValue]) -> Question:
    """Parse the parameters of `elicitation/create`, and keep what can be shown of its form; the message names the rest.

    Raises: UnreadableQuestionError.
    """
    if params.get("mode") not in {None, "form"}:
        raise UnreadableQuestionError("Only questions of the mode 'form' are asked here.")
    message = params.get("message")
    if not isinstance(message, str) or is_blank(message):
        raise UnreadableQuestionError("It has no message.")
    schema, left_out = read_form(params.get("requestedSchema"))
    note = f"\n\nFields of the form that are too large to be shown: {list_names(left_out)}." if left_out else ""
    return Question(message[:_MOST_CHARACTERS] + note, schema)


def find_answer_faults(content: JsonObject, schema: JsonObject) -> Iterator[Fault]:
    """Yield the faults in the content of an answer, each with its place."""
    try:
        size = len(canonical(content))
    except ValueError as error:
        yield Fault("content", f"It cannot be carried exactly: {error}.")
        return
    if size > _MOST_CONTENT_BYTES:
        yield Fault("content", f"{size} bytes are over the limit of {_MOST_CONTENT_BYTES} bytes.")
    elif is_deeper_than(content, 2):
        yield Fault("content", "Its fields may only be texts, numbers, booleans or lists of texts.")
    else:
        yield from argument_faults(content, schema, "content", resolved=True)
