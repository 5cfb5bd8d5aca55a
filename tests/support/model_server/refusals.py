"""Endpoints that refuse what they cannot do, each in its own words. Each function returns a refusal, or None to answer.

The words are those of the products, as they are seen in public reports. `models.on("", refuse_first(FUNCTION, answer))`
makes the server refuse like one of them, and answer otherwise.
"""

import json
from collections.abc import Callable
from typing import Any

from model_server.function_rules import find_gemini_fault
from model_server.replies import Answer, Raw
from model_server.requests import Request

Refuse = Callable[[Request], Raw | None]


def refuse_first(refuse: Refuse, answer: Answer) -> Callable[[Request], Answer]:
    """Return a reply that refuses a request as this endpoint does, and else gives the answer."""
    return lambda request: refuse(request) or answer


def _refusal(status: int, message: str, **more: Any) -> Raw:
    return Raw(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, **more}})


def _gemini(code: int, message: str, status: str = "INVALID_ARGUMENT") -> Raw:
    return Raw(code, [{"error": {"code": code, "message": message, "status": status}}])


# Schemas that are not taken


def gemini_schema(request: Request) -> Raw | None:
    """Gemini, which does not know a keyword of the schema, and answers with a list."""
    place = "'generation_config.response_schema.properties[0].value'"
    message = f'Invalid JSON payload received. Unknown name "additionalProperties" at {place}: Cannot find field.'
    return _gemini(400, message) if request.format == "json_schema" else None


def gemini_empty_object(request: Request) -> Raw | None:
    """Gemini, which takes no object without properties."""
    place = "GenerateContentRequest.generation_config.response_schema.properties[steps].items.properties[arguments]"
    message = f"* {place}.properties: should be non-empty for OBJECT type"
    return _gemini(400, message) if request.format == "json_schema" else None


def anthropic_schema(request: Request) -> Raw | None:
    """Anthropic, which takes closed objects only."""
    message = (
        "output_format.schema: For 'object' type, 'additionalProperties: true' is not supported. Please set "
        "'additionalProperties' to false"
    )
    return _refusal(400, message, code=400) if request.format == "json_schema" else None


def ollama_schema(request: Request) -> Raw | None:
    """Ollama, which fails instead of refusing."""
    error = {"message": "invalid JSON schema in format", "type": "api_error", "param": None, "code": None}
    return Raw(500, {"error": error}) if request.format == "json_schema" else None


def vllm_schema(request: Request) -> Raw | None:
    """VLLM, whose grammar does not know a keyword."""
    message = "The provided JSON schema contains features not supported by xgrammar."
    error = {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
    return Raw(400, error) if request.format == "json_schema" else None


def groq_json(request: Request) -> Raw | None:
    """Groq, whose model failed to write JSON, whatever form of it was asked for."""
    message = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."
    more = {"code": "json_validate_failed", "failed_generation": "{..."}
    return None if request.format == "text" else _refusal(400, message, **more)


def lm_studio_format(request: Request) -> Raw | None:
    """LM Studio, which has no `json_object`, and could not compile this schema; its error is a text."""
    if request.format == "json_object":
        return Raw(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"})
    compiled = "Structured output is not supported: failed to compile json_schema grammar"
    return Raw(400, {"error": compiled}) if request.format == "json_schema" else None


def deepseek_format(request: Request) -> Raw | None:
    """DeepSeek, which has no `json_schema`."""
    message = "This response_format type is unavailable now"
    return _refusal(400, message, code="invalid_request_error") if request.format == "json_schema" else None


def silent_refusal(status: int) -> Refuse:
    """Return an endpoint that refuses a schema without a word about it."""

    def refuse(request: Request) -> Raw | None:
        return _refusal(status, "Something is wrong.") if request.format == "json_schema" else None

    return refuse


def empty_stream(request: Request) -> Raw | None:
    """Send a stream without one event, as some gateways do for a schema that breaks the server behind them."""
    return Raw(200, "data: [DONE]\n\n", "text/event-stream") if request.format == "json_schema" else None


# Parameters that are not known


def newer_limit(request: Request) -> Raw | None:
    """OpenAI's newer models behind a gateway, which want another name of the limit."""
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    more = {"param": "max_tokens", "code": "unsupported_parameter"}
    return _refusal(400, message, **more) if "max_tokens" in request.body else None


def older_limit(request: Request) -> Raw | None:
    """Refuse the newer name of the limit, as older servers do, and the limit's older name where the newer is given."""
    message = "Unknown parameter: 'max_completion_tokens'."
    return _refusal(400, message) if "max_completion_tokens" in request.body else None


def fixed_temperature(request: Request) -> Raw | None:
    """OpenAI's reasoning models, which have one temperature."""
    message = (
        "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is "
        "supported."
    )
    more = {"param": "temperature", "code": "unsupported_value"}
    return _refusal(400, message, **more) if "temperature" in request.body else None


def mistral_stream(request: Request) -> Raw | None:
    """Mistral, which wants no `stream_options`."""
    detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
    body = {"object": "error", "message": {"detail": detail}, "type": "invalid_request_message_error", "code": None}
    return Raw(422, body) if "stream_options" in request.body else None


def few_parameters(request: Request) -> Raw | None:
    """Refuse all parameters but a few, one after the other."""
    known = {"model", "messages", "input", "instructions", "stream", "response_format", "text", "tools"}
    unknown = sorted(request.body.keys() - known - {"max_tokens", "max_output_tokens"})
    return _refusal(400, f"Unrecognized request argument supplied: {unknown[0]}") if unknown else None


def gemma_template(request: Request) -> Raw | None:
    """llama.cpp with a template of Gemma, which has no system message."""
    error = {"code": 500, "message": "System role not supported", "type": "server_error"}
    return Raw(500, {"error": error}) if request.system else None


# Tools that the model cannot call


def ollama_tools(request: Request) -> Raw | None:
    """Ollama with a model that has no template for tools."""
    return _refusal(400, "registry.ollama.ai/library/gemma3:1b does not support tools") if request.tools else None


def llama_cpp_tools(request: Request) -> Raw | None:
    """llama.cpp without its flag."""
    error = {"code": 500, "message": "tools param requires --jinja flag", "type": "server_error"}
    return Raw(500, {"error": error}) if request.tools else None


# Keys, models, filters and faults, to every request


GEMINI_KEY = _gemini(400, "API key not valid. Please pass a valid API key.")
GEMINI_MODEL = _gemini(
    404, "models/tiny is not found for API version v1main, or is not supported for generateContent.", "NOT_FOUND"
)
GEMINI_QUOTA = _gemini(429, "You exceeded your current quota, please check your plan.", "RESOURCE_EXHAUSTED")
LITELLM_KEY = _refusal(400, "No connected db.", type="no_db_connection", code="400")
AZURE_FILTER = _refusal(
    400,
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    param="prompt",
    code="content_filter",
    innererror={"code": "ResponsibleAIPolicyViolation"},
)
LM_STUDIO_UNLOADED = Raw(400, {"error": "Model unloaded."})
CLOUDFLARE = Raw(
    403,
    "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body>Sorry</body></html>",
    "text/html",
)


def error_as_answer(message: str, code: int) -> Raw:
    """Return a success that holds an error, as routers send it for a provider that failed."""
    return Raw(200, {"error": {"message": message, "code": code}})


def error_as_stream(message: str, code: int) -> Raw:
    """Return the same as a stream."""
    return Raw(200, f"data: {json.dumps({'error': {'message': message, 'code': code}})}\n\n", "text/event-stream")


def refuse_functions_like_gemini(request: Request) -> Raw | None:
    """Refuse functions with a keyword that Gemini's API does not have, or without one that it wants."""
    for number, tool in enumerate(request.body.get("tools") or ()):
        function = tool.get("function", tool)
        where = f"tools[0].function_declarations[{number}].parameters"
        if fault := find_gemini_fault(function["parameters"], where):
            return _gemini(400, fault)
    return None


def refuse_functions_without_a_word(request: Request) -> Raw | None:
    """Refuse the same functions as `refuse_functions_like_gemini`, and say nothing of them."""
    return _gemini(400, "Request contains an invalid argument.") if refuse_functions_like_gemini(request) else None


def refuse_returned_thoughts(request: Request) -> Raw | None:
    """Refuse the thoughts of earlier turns, although they were the endpoint's own."""
    for number, message in enumerate(request.body["messages"]):
        if "reasoning_content" in message:
            return _refusal(422, f"body.messages.{number}.reasoning_content: Extra inputs are not permitted")
    return None
