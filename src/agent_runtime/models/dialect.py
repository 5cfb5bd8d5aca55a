"""The parts of the OpenAI API that an endpoint supports, found by asking for all of them and dropping
what it rejects.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent_runtime.domain.values import JsonObject, JsonValue

Output = Literal["json_schema", "json_object", "prompt"]
"""How an answer is bound to a schema, the strictest first: by the schema, to be JSON at all, or by the prompt only."""

_LOWER: dict[Output, Output] = {"json_schema": "json_object", "json_object": "prompt"}

_OUTPUT = re.compile(
    r"response_format|text\.format|json_schema|json_object|structured.?output|invalid.?schema|guided|grammar",
    re.IGNORECASE,
)
_OF_THIS_REQUEST = re.compile(r"invalid.{0,20}schema|must contain the word", re.IGNORECASE)
_REASONING = re.compile(r"encrypted|\binclude\b", re.IGNORECASE)
_COUNTS = re.compile(r"stream_options|include_usage", re.IGNORECASE)
_STREAM = re.compile(r"\bstream(ing|ed)?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The options of a request. `lasting` is False if `output` was lowered because of this request, not the endpoint.

    `reasoning`: ask a reasoning model for its encrypted reasoning, to send back on its next turn. `counts`: ask for the
    usage at the end of a stream. `streams`: ask for the answer as a stream.
    """

    output: Output = "json_schema"
    reasoning: bool = True
    counts: bool = True
    streams: bool = True
    lasting: bool = True

    def adapt_to(self, complaint: str, *, schema: bool) -> "Dialect | None":
        """Return the options to try after an endpoint rejected a request; None if its complaint is not about options.

        `complaint` is the code, the parameter and the message of its error. `schema` is True if the request contained
        one.
        """
        if not complaint:
            return None
        if self.reasoning and _REASONING.search(complaint):
            return replace(self, reasoning=False)
        if self.streams and self.counts and _COUNTS.search(complaint):
            return replace(self, counts=False)
        lower = _LOWER.get(self.output)
        if schema and lower and _OUTPUT.search(complaint):
            return replace(self, output=lower, lasting=self.lasting and not _OF_THIS_REQUEST.search(complaint))
        if self.streams and _STREAM.search(complaint):
            return replace(self, streams=False)
        return None


_STRICT_WORDS = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "format", "items", "pattern",
     "maxItems", "maximum", "minItems", "minimum", "multipleOf", "properties", "required", "title", "type",
     "exclusiveMaximum", "exclusiveMinimum"}
)  # fmt: skip
"""The keywords of OpenAI's strict mode (platform.openai.com/docs/guides/structured-outputs, "Supported schemas")."""


def allows_strict(schema: JsonObject) -> bool:
    """Return whether OpenAI's strict mode accepts the schema: objects closed, all properties required, known keywords
    only.
    """
    return schema.get("type") == "object" and "anyOf" not in schema and _is_strict(schema)


def _is_strict(schema: JsonValue) -> bool:
    if not isinstance(schema, dict) or not schema.keys() <= _STRICT_WORDS:
        return False
    if schema.get("type") == "object" or "properties" in schema:
        names: Any = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(names):
            return False
    elif not schema.keys() & {"type", "anyOf", "enum", "const", "$ref"}:
        return False
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(map(_is_strict, [*inner, schema["items"]] if "items" in schema else inner))
