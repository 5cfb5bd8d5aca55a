"""Questions of a server to the user during a call (MCP elicitation), and the validation of answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent_runtime.domain.drafting import argument_faults
from agent_runtime.domain.errors import Fault
from agent_runtime.domain.events import AnswerAction
from agent_runtime.domain.schemas import UnusableSchemaError, check_schema
from agent_runtime.domain.values import JsonObject, JsonValue, canonical, is_deeper_than
from agent_runtime.text.escaping import is_blank

MOST_QUESTIONS = 16
"""The number of questions that a server may ask in one call. Further questions are declined at once."""

_MOST_CHARACTERS = 4000
_MOST_SCHEMA_BYTES = 16 * 1024
_MOST_CONTENT_BYTES = 64 * 1024
_CHECK_SECONDS = 0.05

_KEYWORDS = frozenset(
    {"type", "title", "description", "enum", "enumNames", "const", "format", "default", "uniqueItems"}
    | {"minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"}
)
"""The keywords of a field that are kept. MCP allows a flat object of simple fields, so no others can be needed."""


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
    """Parse the parameters of `elicitation/create`, and keep the parts of its schema that MCP allows.

    Raises: UnreadableQuestionError.
    """
    if params.get("mode") not in {None, "form"}:
        raise UnreadableQuestionError("Only questions of the mode 'form' are asked here.")
    message = params.get("message")
    if not isinstance(message, str) or is_blank(message):
        raise UnreadableQuestionError("It has no message.")
    given = params.get("requestedSchema")
    schema = _read_schema(given if isinstance(given, dict) else {})
    try:
        if len(canonical(schema)) > _MOST_SCHEMA_BYTES:
            raise UnreadableQuestionError(f"Its schema has more than {_MOST_SCHEMA_BYTES} bytes.")
        check_schema(schema, _CHECK_SECONDS)
    except (ValueError, UnusableSchemaError) as error:
        raise UnreadableQuestionError(f"Its schema cannot be used: {error}") from error
    return Question(message[:_MOST_CHARACTERS], schema)


def _read_schema(given: JsonObject) -> JsonObject:
    fields = given.get("properties")
    properties = {name: _read_field(field) for name, field in fields.items()} if isinstance(fields, dict) else {}
    required = given.get("required")
    names = [name for name in required if name in properties] if isinstance(required, list) else []
    return {"type": "object", "properties": properties, **({"required": names} if names else {})}


def _read_field(given: JsonValue, *, nested: bool = False) -> JsonObject:
    if not isinstance(given, dict):
        return {}
    field = {name: value for name, value in given.items() if name in _KEYWORDS and value is not None}
    for name in ("oneOf", "anyOf"):
        choices = given.get(name)
        if isinstance(choices, list) and all(isinstance(one, dict) and "const" in one for one in choices):
            field[name] = [{key: one[key] for key in ("const", "title") if key in one} for one in choices]
    if "items" in given and not nested:
        field["items"] = _read_field(given["items"], nested=True)
    return field


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
