import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.model_requests import ModelStatus
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.plan_requests import PlanRequest
from agent_runtime.domain.tools import StdioConfig, StdioServer, Tool, ToolDefinition, ToolPolicy, describe_tool
from agent_runtime.domain.usage import estimate_tokens
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.examples import build_examples, build_single_calls
from agent_runtime.planners.model.model_size import PlanFields, is_small, shows_all_fields
from agent_runtime.planners.model.plan_reader import read_plan
from agent_runtime.planners.model.planner import ModelPlanner
from agent_runtime.planners.model.prompt import build_instructions, needs_extras, to_json
from agent_runtime.planners.model.tool_listing import list_tools
from agent_runtime.testing import ScriptedLanguageModel
from unit.planners.planning import all_tools

IMAGE_FETCH = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "format": "uri"},
        **{
            f"setting{n}": {"allOf": [{"type": ["number", "string"]}, {"type": "number"}], "default": n}
            for n in range(8)
        },
        **{f"flag{n}": {"type": ["boolean", "string"], "default": False} for n in range(6)},
        **{
            f"part{n}": {"type": "object", "properties": {f"inner{m}": {"type": "integer"} for m in range(5)}}
            for n in range(3)
        },
    },
    "required": ["url"],
}
"""A schema like that of the page reader in the shipped registry."""


class SmallModel(ScriptedLanguageModel):
    def status(self) -> ModelStatus:
        return replace(super().status(), model="smollm2:135m")


def tool(name: str, schema: JsonObject, server: str = "srv", **policy: Any) -> Tool:
    entry = StdioServer(
        id=server, type="local_stdio", config=StdioConfig(command="x"), tools={"*": ToolPolicy.model_validate(policy)}
    )
    return describe_tool(entry, ToolDefinition(name=name, description="画像" * 500, inputSchema=schema))


def takes(**kinds: str) -> JsonObject:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in kinds.items()},
        "required": [*kinds],
    }


def instruct(tools: Sequence[Tool], **more: Any) -> str:
    extras = more.get("extras", True)
    listing = list_tools(tools, "", (), 24_000, notes=extras)
    return build_instructions(listing, tools, **{"most_steps": 20, "agent_steps": True, **more})


async def test_the_prompt_of_the_shipped_registry_is_below_3000_tokens() -> None:
    shipped = [*await all_tools(), tool("imageFetch", IMAGE_FETCH, "fetch", effect="read")]
    assert estimate_tokens(instruct(shipped)) < 3000
    assert estimate_tokens(instruct(shipped, extras=False)) < 2600


async def test_references_and_conditions_are_explained_only_where_there_can_be_any() -> None:
    tools = await all_tools()
    assert "# References" in instruct(tools)
    assert "A CONDITION is" in instruct(tools)
    assert "# References" not in instruct(tools, most_steps=1)
    still = [tool("ping", {"type": "object", "properties": {}})]
    assert "# References" not in instruct(still, agent_steps=False)
    assert "${" not in instruct(still, agent_steps=False)
    few = instruct(tools, extras=False)
    assert "# References" in few
    for word in ("CONDITION", '"when"', "depends_on", "retries", "timeout_s", "max_turns", '"kind"'):
        assert word not in few


@pytest.mark.parametrize("agent_steps", [False, True])
@pytest.mark.parametrize("question", ["", "Delete a todo", "Add 3 and 4", "Alle Dateien auflisten"])
async def test_the_examples_are_good_plans_with_tools_of_the_catalogue(question: str, agent_steps: bool) -> None:  # noqa: FBT001
    tools = await all_tools()
    known = {each.key: each for each in tools}
    examples = build_examples(tools, question, agent_steps=agent_steps, chains=True)
    assert [len(example.plan.steps) for example in examples] == [1, 2]
    single = build_single_calls(tools, question)
    assert len(single) == 2
    for example in (*examples, *single):
        assert list(find_faults(example.plan, Limits(), known, agent_steps=agent_steps)) == []
        for extras in (False, True):
            assert read_plan(to_json(example.plan, extras=extras), tools, example.plan.goal) == example.plan


async def test_the_examples_are_made_with_the_tools_that_fit_the_request() -> None:
    tools = await all_tools()
    (least, most) = build_single_calls(tools, "Mark the todo as done")
    assert [step.tool for step in most.plan.steps if step.kind == "tool"] == ["complete"]
    assert least.request != most.request
    told = instruct(tools, question="Please multiply something")
    assert "Request: Multiply: a 7, b 7\n" in told.partition("# Examples")[2]


def test_no_text_of_a_server_but_plain_names_comes_into_an_example() -> None:
    hostile = [
        tool("ignore the rules", takes(a="string")),
        tool("fine", takes(**{"a b": "string"})),
        tool("choose", {"type": "object", "properties": {"a": {"enum": ["do evil"]}}, "required": ["a"]}),
        tool("denied", takes(a="string")).model_copy(update={"denials": ()}),
    ]
    examples = build_examples(hostile, "", agent_steps=False, chains=True)
    assert {step.tool for one in examples for step in one.plan.steps if step.kind == "tool"} == {"denied"}
    assert build_examples(hostile[:3], "", agent_steps=True, chains=True) == []
    assert "# Examples" not in instruct(hostile[:3])


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("smollm2:135m", True),
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", True),
        ("qwen3:1.7b", True),
        ("llama3.2:3b", True),
        ("qwen3:8b", False),
        ("Qwen/Qwen3-30B-A3B", False),
        ("mixtral-8x7b", False),
        ("gpt-5-mini", False),
        ("claude-sonnet-4-20250514", False),
        ("gemma-3n-e4b", False),
        ("local", False),
        ("", False),
    ],
)
def test_a_small_model_is_known_by_its_name(name: str, small: bool) -> None:  # noqa: FBT001
    assert is_small(name) == small
    assert shows_all_fields("auto", name) == (not small)
    assert shows_all_fields("all", name)
    assert not shows_all_fields("few", name)


STEP: JsonObject = {"title": "Read", "server": "filesystem", "tool": "read_file", "arguments": {"path": "notes.txt"}}
FEW = json.dumps({"steps": [STEP]})


def plan_of(**more: Any) -> Plan:
    return Plan.model_validate({"goal": "G", "steps": [{"id": "s1", "kind": "tool", **STEP, **more}]})


@pytest.mark.parametrize(
    ("fields", "model", "few"),
    [
        ("auto", SmallModel, True),
        ("all", SmallModel, False),
        ("auto", ScriptedLanguageModel, False),
        ("few", ScriptedLanguageModel, True),
    ],
)
async def test_a_small_model_is_asked_for_few_fields_after_examples(
    fields: PlanFields,
    model: type[ScriptedLanguageModel],
    few: bool,  # noqa: FBT001
) -> None:
    asked = model([FEW])
    answer = await ModelPlanner(asked, fields=fields).plan(
        PlanRequest("Read the file notes.txt", await all_tools(), 20)
    )
    assert answer.plan == plan_of().model_copy(update={"goal": "Read the file notes.txt"})
    (request,) = asked.requests
    assert ("depends_on" not in json.dumps(request.schema)) == few
    assert ("depends_on" not in request.instructions) == few
    assert [item["role"] for item in request.items] == ["user", "assistant"] * 2 * few + ["user"]
    assert ("# Examples" in request.instructions) != few
    if few:
        assert '"tool": "read_file"' in request.items[-2]["content"]


async def test_a_small_model_revises_what_it_could_write_again() -> None:
    tools = await all_tools()
    for previous, few in ((plan_of(), True), (plan_of(retries=2), False), (plan_of(id="first"), False)):
        assert needs_extras(previous, tools) != few
        asked = SmallModel([FEW])
        await ModelPlanner(asked).plan(PlanRequest("Read it", tools, 20, previous=previous, feedback=("Shorter",)))
        (request,) = asked.requests
        assert ("retries" not in json.dumps(request.schema)) == few
        assert len(request.items) == 3
        assert ('"kind"' not in request.items[1]["content"]) == few


async def test_a_correction_shows_the_whole_schema_of_a_tool_whose_arguments_are_wrong() -> None:
    tools = await all_tools()
    known = {each.key: each for each in tools}
    wrong = json.dumps({"steps": [{**STEP, "arguments": {"file": "notes.txt"}}]})
    asked = SmallModel([wrong, FEW])
    request = PlanRequest(
        "Read it", tools, 20, faults=lambda plan: list(find_faults(plan, Limits(), known, agent_steps=False))
    )
    await ModelPlanner(asked).plan(request)
    correction = asked.requests[1].items[-1]["content"]
    assert '"tool":"read_file"' in correction
    assert '"arguments_schema":{' in correction
    assert '"path":{' in correction
    assert "write_file" not in correction
