"""Requests to a model in both APIs of OpenAI, and their validation, with the error messages of OpenAI."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from model_server.function_rules import find_fault

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MOST_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TEXT_PARTS = {
    "user": ("text", "input_text"),
    "system": ("text", "input_text"),
    "assistant": ("text", "output_text", "refusal"),
    "result": ("text", "input_text"),
}
_OTHER_PARTS = ("image_url", "input_audio", "file", "input_image", "input_file")
_KINDS: dict[str, "Kind"] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

Kind = Literal["system", "user", "assistant", "call", "result", "other"]


class WireError(Exception):
    """An error response: its status, and its body in the shape of OpenAI."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code, **more}

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}).encode()


@dataclass(frozen=True)
class Item:
    """One item of a conversation. `text` holds the arguments of a call, or the output of a result."""

    kind: Kind
    text: str
    name: str = ""
    call_id: str = ""


@dataclass(frozen=True)
class Request:
    """A received request, with one view for both APIs. `items` is empty if the body was refused."""

    index: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    items: tuple[Item, ...] = field(default=())
    query: str = ""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def system(self) -> str:
        """The instructions, and the system and developer messages."""
        return "\n".join(item.text for item in self.items if item.kind == "system")

    @property
    def prompt(self) -> str:
        """The last user message."""
        return next((item.text for item in reversed(self.items) if item.kind == "user"), "")

    @cached_property
    def text(self) -> str:
        """The whole conversation: instructions, messages, calls and results."""
        return "\n".join(f"{item.name} {item.text}".strip() for item in self.items)

    @property
    def results(self) -> dict[str, str]:
        """The outputs of tools since the last user message, by call id."""
        return {item.call_id: item.text for item in self._latest if item.kind == "result"}

    @property
    def turn(self) -> int:
        """The number of turns of the model since the last user message."""
        spoken = [item.kind in {"assistant", "call"} for item in self._latest]
        return sum(now and not before for before, now in zip([False, *spoken], spoken, strict=False))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that are offered."""
        return [tool.get("function", tool)["name"] for tool in self.body.get("tools") or []]

    @property
    def format(self) -> str:
        """The requested format of the answer: `text`, `json_object` or `json_schema`."""
        return str(format_of(self.path, self.body).get("type", "text"))

    @property
    def max_tokens(self) -> int | None:
        """The token limit of the answer."""
        for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
            if isinstance(limit := self.body.get(name), int):
                return limit
        return None

    @property
    def _latest(self) -> list[Item]:
        last = max((number for number, item in enumerate(self.items) if item.kind == "user"), default=-1)
        return list(self.items[last + 1 :])


def format_of(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the requested format in one shape: type, and for `json_schema` name, schema and strict."""
    if path == RESPONSES:
        return dict((body.get("text") or {}).get("format") or {})
    given = body.get("response_format") or {}
    return {"type": given.get("type", "text"), **(given.get("json_schema") or {})}


def check(path: str, body: dict[str, Any]) -> tuple[Item, ...]:
    """Validate a request, and return its conversation. Raises: WireError if OpenAI would refuse it."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise WireError(400, "you must provide a model parameter")
    try:
        _check_options(path, body)
        items = _input_of(body) if path == RESPONSES else _messages_of(body)
        _check_format(path, body, items)
    except (AttributeError, KeyError, TypeError) as error:
        raise WireError(400, f"The request has not the shape that it must have: {error!r}") from error
    return items


def _require(given: Any, name: str, where: str, kind: type = str) -> Any:
    if not isinstance(given, dict):
        raise WireError(400, f"Invalid type for '{where}': {given!r}.", code="invalid_type", param=where)
    if name not in given:
        raise WireError(
            400,
            f"Missing required parameter: '{where}.{name}'.",
            code="missing_required_parameter",
            param=f"{where}.{name}",
        )
    if not isinstance(given[name], kind):
        raise WireError(
            400, f"Invalid type for '{where}.{name}': {given[name]!r}.", code="invalid_type", param=f"{where}.{name}"
        )
    return given[name]


def _check_options(path: str, body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if path == CHAT:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None and not tools:
                raise WireError(400, f"'{name}' is only allowed when 'tools' are specified.", param=name)
        if tools == []:
            raise WireError(400, "Invalid 'tools': empty array.", code="empty_array", param="tools")
        if body.get("stream_options") is not None and body.get("stream") is not True:
            raise WireError(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    elif body.get("previous_response_id") is not None:
        message = f"Previous response with id '{body['previous_response_id']}' not found."
        raise WireError(400, message, code="previous_response_not_found", param="previous_response_id")
    least = 16 if path == RESPONSES else 1
    for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if limit is not None and (not isinstance(limit, int) or limit < least):
            message = f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {limit}."
            raise WireError(400, message, code="integer_below_min_value", param=name)
    if len(tools or []) > MOST_TOOLS:
        message = (
            f"Invalid 'tools': array too long. Expected an array with maximum length {MOST_TOOLS}, "
            f"but got an array with length {len(tools or [])} instead."
        )
        raise WireError(400, message, code="array_above_max_length", param="tools")
    for number, tool in enumerate(tools or []):
        _check_tool(path, tool, f"tools[{number}]")


def _check_tool(path: str, tool: dict[str, Any], where: str) -> None:
    if _require(tool, "type", where) != "function":
        raise WireError(400, f"Invalid value: '{tool['type']}'. This server has only functions.", param=f"{where}.type")
    if path == CHAT:
        where = f"{where}.function"
        tool = _require(tool, "function", where.removesuffix(".function"), dict)
    name = _require(tool, "name", where)
    _check_name(name, f"{where}.name")
    if tool.get("parameters") is not None:
        _check_schema(tool["parameters"], f"function '{name}'", strict=tool.get("strict") is True)
        if fault := find_fault(tool["parameters"]):
            raise WireError(400, f"Invalid schema for function '{name}': {fault}", code="invalid_function_parameters")


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        message = f"Invalid '{where}': string does not match pattern. Expected a string that matches the pattern "
        raise WireError(400, f"{message}'^[a-zA-Z0-9_-]+$'.", code="invalid_value", param=where)


def _check_schema(schema: dict[str, Any], whose: str, *, strict: bool) -> None:
    if schema.get("type") != "object":
        kind = schema.get("type")
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
        raise WireError(400, f"Invalid schema for {whose}: {message}", code="invalid_function_parameters")
    if strict:
        _check_strict(schema, whose, ())


def _check_strict(schema: Any, whose: str, path: tuple[str, ...]) -> None:
    """Check the rules of structured outputs: no additional properties, all required, no oneOf or allOf."""

    def refuse(what: str) -> WireError:
        message = f"Invalid schema for {whose}: In context={path}, {what}"
        return WireError(400, message, code="invalid_json_schema")

    if not isinstance(schema, dict):
        return
    for name in ("oneOf", "allOf", "not", "if", "patternProperties"):
        if name in schema:
            raise refuse(f"'{name}' is not permitted.")
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            raise refuse("'additionalProperties' is required to be supplied and to be false.")
        properties = schema.get("properties") or {}
        if missing := sorted(set(properties) - set(schema.get("required") or ())):
            what = "'required' is required to be supplied and to be an array including every key in properties."
            raise refuse(f"{what} Missing '{missing[0]}'.")
    for group in ("properties", "$defs", "definitions"):
        for name, inner in (schema.get(group) or {}).items():
            _check_strict(inner, whose, (*path, group, name))
    for number, inner in enumerate(schema.get("anyOf") or []):
        _check_strict(inner, whose, (*path, "anyOf", str(number)))
    _check_strict(schema.get("items"), whose, (*path, "items"))


def _check_format(path: str, body: dict[str, Any], items: tuple[Item, ...]) -> None:
    given = format_of(path, body)
    kind, param = given.get("type", "text"), "text.format" if path == RESPONSES else "response_format"
    if kind not in {"text", "json_object", "json_schema"}:
        raise WireError(400, f"Invalid value: '{kind}'.", code="invalid_value", param=f"{param}.type")
    if kind == "json_schema":
        _check_name(_require(given, "name", param), f"{param}.name")
        schema = _require(given, "schema", param, dict)
        _check_schema(schema, f"response_format '{given['name']}'", strict=given.get("strict") is True)
    if kind == "json_object":
        # The Responses API checks the input only, not the instructions.
        said = [item.text for item in items[1 if path == RESPONSES and body.get("instructions") else 0 :]]
        if "json" not in "\n".join(said).lower():
            what = "Response input messages" if path == RESPONSES else "'messages'"
            message = f"{what} must contain the word 'json' in some form, to use '{param}' of type 'json_object'."
            raise WireError(400, message, param="input" if path == RESPONSES else "messages")


def _text_of(content: Any, kind: str, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise WireError(400, f"Invalid type for '{where}': {content!r}.", code="invalid_type", param=where)
    texts = []
    for number, part in enumerate(content):
        part_kind = _require(part, "type", f"{where}[{number}]")
        if part_kind in _TEXT_PARTS[kind]:
            texts.append(_require(part, "refusal" if part_kind == "refusal" else "text", f"{where}[{number}]"))
        elif kind == "assistant" or part_kind not in _OTHER_PARTS:
            message = f"Invalid value: '{part_kind}'. Supported values are: {', '.join(map(repr, _TEXT_PARTS[kind]))}."
            raise WireError(400, message, code="invalid_value", param=f"{where}[{number}].type")
    return "\n".join(texts)


def _messages_of(body: dict[str, Any]) -> tuple[Item, ...]:
    """Return the conversation of a chat completion. Results must directly follow the message with their calls."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise WireError(400, message, code="empty_array", param="messages")
    items: list[Item] = []
    waiting: list[str] = []

    def none_waits() -> None:
        if waiting:
            message = "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            missing = f"The following tool_call_ids did not have response messages: {', '.join(waiting)}"
            raise WireError(400, f"{message}'tool_call_id'. {missing}", param="messages")

    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = _require(message, "role", where)
        if role == "tool":
            call_id = _require(message, "tool_call_id", where)
            if call_id not in waiting:
                what = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                raise WireError(400, f"Invalid parameter: {what}", param=f"{where}.role")
            waiting.remove(call_id)
            items.append(Item("result", _text_of(message.get("content"), "result", where), call_id=call_id))
            continue
        none_waits()
        if role not in _KINDS:
            raise WireError(400, f"Invalid value: '{role}'.", code="invalid_value", param=f"{where}.role")
        content, calls = message.get("content"), message.get("tool_calls")
        if content is not None or not (role == "assistant" and (calls or message.get("refusal"))):
            items.append(Item(_KINDS[role], _text_of(content, _KINDS[role], f"{where}.content")))
        for place, call in enumerate(calls or []):
            called = _require(call, "function", f"{where}.tool_calls[{place}]", dict)
            waiting.append(_require(call, "id", f"{where}.tool_calls[{place}]"))
            arguments = _require(called, "arguments", f"{where}.tool_calls[{place}].function")
            items.append(Item("call", arguments, called["name"], call["id"]))
    none_waits()
    return tuple(items)


def _input_of(body: dict[str, Any]) -> tuple[Item, ...]:
    """Return the conversation of the Responses API. Each call needs an output after it, and each output a call."""
    instructions, given = body.get("instructions"), body.get("input")
    items = [Item("system", instructions)] if instructions else []
    if isinstance(given, str):
        return (*items, Item("user", given))
    if not isinstance(given, list):
        raise WireError(400, "Missing required parameter: 'input'.", code="missing_required_parameter", param="input")
    waiting: list[str] = []
    for number, item in enumerate(given):
        where = f"input[{number}]"
        kind = item.get("type", "message")
        if kind == "message":
            _check_id(item, "msg", where)
            role = _require(item, "role", where)
            if role not in _KINDS:
                raise WireError(400, f"Invalid value: '{role}'.", code="invalid_value", param=f"{where}.role")
            items.append(Item(_KINDS[role], _text_of(item.get("content"), _KINDS[role], f"{where}.content")))
        elif kind == "function_call":
            _check_id(item, "fc", where)
            call_id = _require(item, "call_id", where)
            waiting.append(call_id)
            items.append(Item("call", _require(item, "arguments", where), _require(item, "name", where), call_id))
        elif kind == "function_call_output":
            call_id = _require(item, "call_id", where)
            if call_id not in waiting:
                message = f"No tool call found for function call output with call_id {call_id}."
                raise WireError(400, message, param="input")
            waiting.remove(call_id)
            items.append(Item("result", _text_of(item.get("output"), "result", f"{where}.output"), call_id=call_id))
        elif kind == "reasoning":
            items.append(Item("other", ""))
        else:
            raise WireError(400, f"Invalid value: '{kind}'.", code="invalid_value", param=f"{where}.type")
    if waiting:
        raise WireError(400, f"No tool output found for function call {waiting[0]}.", param="input")
    return tuple(items)


def _check_id(item: dict[str, Any], prefix: str, where: str) -> None:
    if item.get("id") is not None and not str(item["id"]).startswith(prefix):
        message = f"Invalid '{where}.id': '{item['id']}'. Expected an ID that begins with '{prefix}'."
        raise WireError(400, message, code="invalid_value", param=f"{where}.id")
