"""Remove the JSON nulls that language models write for optional arguments without a value."""

from collections.abc import Iterable, Mapping

from pydantic_core import from_json, to_json

from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.plan import Plan, Step, ToolStep
from agent_runtime.domain.schemas import UnusableSchemaError, as_open, errors_of
from agent_runtime.domain.tools import Tool, tool_key
from agent_runtime.domain.values import JsonObject


def without_optional_nulls(arguments: JsonObject, schema: JsonObject) -> JsonObject:
    """Return the arguments without optional ones whose value `null` does not match their schema."""
    named, required = schema.get("properties"), schema.get("required", ())
    nulls = {name for name, value in arguments.items() if value is None}
    if not nulls or not isinstance(named, Mapping) or not nulls & named.keys() - set(required):
        return arguments
    try:
        wrong = {error.path[0] for error in errors_of(schema, as_open(arguments)) if error.path}
    except UnusableSchemaError:
        return arguments
    dropped = nulls & wrong & named.keys() - set(required)
    return {name: value for name, value in arguments.items() if name not in dropped}


def plan_without_optional_nulls(plan: Plan, tools: Iterable[Tool]) -> Plan:
    """Return the plan with `without_optional_nulls` applied to the arguments of each tool step."""
    schemas = {tool.key: tool.definition.arguments_schema for tool in tools}

    def read(step: Step) -> Step:
        if not isinstance(step, ToolStep) or None not in step.arguments.values():
            return step
        arguments = without_optional_nulls(step.arguments, schemas.get(tool_key(step.server, step.tool), {}))
        return step.model_copy(update={"arguments": arguments})

    return plan.model_copy(update={"steps": tuple(map(read, plan.steps))})


def call_without_optional_nulls(call: ModelCall, schema: JsonObject) -> ModelCall:
    """Return the call with `without_optional_nulls` applied to its arguments."""
    if "null" not in call.arguments:
        return call
    try:
        given = from_json(call.arguments)
    except ValueError:
        return call  # `call_rules.judge` refuses it
    read = without_optional_nulls(given, schema) if isinstance(given, dict) else given
    return call if read is given else call.model_copy(update={"arguments": to_json(read).decode()})
