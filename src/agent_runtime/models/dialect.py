"""The parts of the OpenAI API that an endpoint supports, found by asking for all of them and dropping
what it rejects.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent_runtime.domain.model_requests import ModelRequest
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.models.answer_reader import RETURNED_FIELDS
from agent_runtime.models.functions import fit_function

Output = Literal["json_schema", "json_object", "prompt"]
"""How an answer is bound to a schema, the strictest first: by the schema, to be JSON at all, or by the prompt only."""

LimitName = Literal["max_tokens", "max_completion_tokens"]
"""The name of the token limit in a chat completion."""

_LOWER: dict[Output, Output] = {"json_schema": "json_object", "json_object": "prompt"}
_OTHER_LIMIT: dict[LimitName, LimitName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}

_OUTPUT = re.compile(
    r"response_format|response_schema|output_format|output_config|text\.format|json_schema|json_object|json schema"
    r"|structured.?output|invalid.?schema|guided|grammar|json_validate_failed",
    re.IGNORECASE,
)
_OF_THIS_REQUEST = re.compile(
    r"invalid.{0,20}schema|must contain the word|json_validate_failed|additional_?properties|non-empty"
    r"|output_format\.schema|response_schema\.|schema contains|failed to (parse|compile)",
    re.IGNORECASE,
)
"""The words for a schema that this endpoint cannot take, although it takes others, and for one failed answer."""

_REJECTS = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|forbidden|not (be )?(support|permit|allow|accept|available)"
    r"|(not|n't) support|may not|may only|only be set|must be verified|deprecated|no longer",
    re.IGNORECASE,
)
_REASONING = re.compile(r"encrypted|\binclude\b", re.IGNORECASE)
_COUNTS = re.compile(r"stream_options|include_usage", re.IGNORECASE)
_STREAM = re.compile(r"\bstream(ing|ed)?\b", re.IGNORECASE)
_SYSTEM = re.compile(
    r"system.{0,20}(role|message|prompt).{0,40}not.{0,10}(support|allow)|roles must alternate"
    r"|only user and assistant roles",
    re.IGNORECASE,
)
"""The words of chat templates without a system message: of Gemma's, and of older ones of Mistral and Llama."""

_FUNCTIONS = re.compile(
    r"function_declarations|tool_declarations|invalid schema for function|tools?[\[.]\d+|input_schema"
    r"|function\.(parameters|description)|functions?.{0,20}(schema|parameters)",
    re.IGNORECASE,
)
"""The words for the definition of a function: Gemini's, OpenAI's and Anthropic's."""

_RETURNED = re.compile(
    "|".join((*sorted(RETURNED_FIELDS - {"reasoning"}), r"messages\b.{0,40}\breasoning\b")),
    re.IGNORECASE,
)
"""The names of returned fields; `reasoning` is also a parameter of requests."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The options of a request. `lasting` is False if `output` was lowered because of this request, not the endpoint.

    `reasoning`: ask a reasoning model for its encrypted reasoning, to send back on its next turn. `counts`: ask for the
    usage at the end of a stream. `streams`: ask for the answer as a stream. `system`: send the instructions as a system
    message, not with the first message of the user. `limit`: the name of the token limit in a chat completion.
    `plain`: describe functions with few keywords of JSON Schema (`functions.py`). `returns`: send back what came with
    calls. `options`: the names of further parameters that are sent, and that an endpoint may do without.
    """

    output: Output = "json_schema"
    reasoning: bool = True
    counts: bool = True
    streams: bool = True
    system: bool = True
    limit: LimitName = "max_tokens"
    plain: bool = False
    returns: bool = True
    options: frozenset[str] = frozenset()
    lasting: bool = True

    def adapt_to(self, complaint: str, *, schema: bool) -> "Dialect | None":
        """Return the options to try after an endpoint rejected a request; None if its complaint is not about options.

        `complaint` is the code, the parameter and the message of its error. `schema` is True if the request contained
        one.
        """
        if not complaint:
            return None
        if self.system and _SYSTEM.search(complaint):
            return replace(self, system=False)
        if not self.plain and _FUNCTIONS.search(complaint):
            return replace(self, plain=True)
        lower = self._without_rejected(complaint) if _REJECTS.search(complaint) else None
        if lower is None and schema and _OUTPUT.search(complaint):
            return self.lower_output(lasting=not _OF_THIS_REQUEST.search(complaint))
        if lower is None and self.streams and _REJECTS.search(complaint) and _STREAM.search(complaint):
            return replace(self, streams=False)
        return lower

    def lower_output(self, *, lasting: bool = False) -> "Dialect | None":
        """Return the options with the next looser way of binding an answer to a schema; None if there is none."""
        lower = _LOWER.get(self.output)
        return replace(self, output=lower, lasting=self.lasting and lasting) if lower else None

    def relax(self, request: ModelRequest) -> "Dialect | None":
        """Return the options to try after a request failed for no known reason: a looser schema, or plain functions."""
        if request.schema is not None:
            return self.lower_output()
        differ = any(fit_function(tool, plain=True) != fit_function(tool, plain=False) for tool in request.tools)
        return replace(self, plain=True) if differ and not self.plain else None

    def _without_rejected(self, complaint: str) -> "Dialect | None":
        """Return the options without the first parameter that a complaint names; None if it names none that is sent."""
        found = {name: place for name in (*self.options, self.limit) if (place := _find(name, complaint)) is not None}
        rejected = min(found, key=found.__getitem__) if found else None
        if rejected in self.options:
            return replace(self, options=self.options - {rejected})
        if rejected is not None:
            return replace(self, limit=_OTHER_LIMIT[self.limit])
        if self.returns and _RETURNED.search(complaint):
            return replace(self, returns=False)
        if self.reasoning and _REASONING.search(complaint):
            return replace(self, reasoning=False)
        if self.streams and self.counts and _COUNTS.search(complaint):
            return replace(self, counts=False)
        return None

    def learn_from(self, used: "Dialect") -> "Dialect":
        """Return these options without those that a successful request did without; `output` stays."""
        return replace(
            self,
            reasoning=self.reasoning and used.reasoning,
            counts=self.counts and used.counts,
            streams=self.streams and used.streams,
            system=self.system and used.system,
            plain=self.plain or used.plain,
            returns=self.returns and used.returns,
            limit=used.limit,
            options=self.options & used.options,
        )

    def shape(self, request: ModelRequest) -> ModelRequest:
        """Return the request as it is sent: where there is no system message, the user's first begins with it."""
        if self.system or not request.instructions:
            return request
        first, *rest = request.items or ({"role": "user", "content": ""},)
        told = {"role": "user", "content": request.instructions}
        if first.get("role") == "user" and isinstance(first.get("content"), str):
            merged = {**first, "content": f"{request.instructions}\n\n{first['content']}".rstrip()}
            return replace(request, instructions="", items=[merged, *rest])
        return replace(request, instructions="", items=[told, first, *rest])


def _find(name: str, text: str) -> int | None:
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    return found.start() if found else None


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
