import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from agent_runtime.domain.conditions import read_condition
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import ModelError, PlanningError
from agent_runtime.domain.plan import AgentStep, AllowedTool, Plan, ToolStep
from agent_runtime.domain.plan_requests import PlanRequest
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.references import parse_template
from agent_runtime.domain.tools import StdioConfig, StdioServer, Tool, ToolDefinition, describe_tool
from agent_runtime.domain.usage import Usage
from agent_runtime.planners.model.plan_schema import build_general_schema, build_plan_schema
from agent_runtime.planners.model.planner import ModelPlanner
from agent_runtime.services.ports import Planner
from agent_runtime.testing import ScriptedLanguageModel, text_answer
from unit.planners.planning import all_tools
from unit.planners.test_json_answer import PLANS

PLAN = Plan.model_validate(
    {
        "goal": "Copy the notes",
        "steps": [
            {
                "id": "s1",
                "kind": "tool",
                "server": "filesystem",
                "tool": "read_file",
                "arguments": {"path": "notes.txt"},
            },
            {
                "id": "s2",
                "kind": "tool",
                "server": "filesystem",
                "tool": "write_file",
                "arguments": {"path": "copy.txt", "content": "${s1.text}"},
                "when": "${s1.text} != ''",
            },
        ],
    }
)
GOOD = PLAN.model_dump_json()
BAD = GOOD.replace('${s1.text}"', '${s9.text}"')
SPENT = Usage(input_tokens=100, output_tokens=10)


@pytest.fixture
async def tools() -> list[Tool]:
    return await all_tools()


def make_request(tools: Sequence[Tool], prompt: str = "Copy notes.txt to copy.txt", **more: Any) -> PlanRequest:
    known = {tool.key: tool for tool in tools}
    steps = more.get("agent_steps", False)
    most = more.setdefault("max_steps", 20)

    def faults(plan: Plan) -> list[Any]:
        return list(find_faults(plan, Limits(max_steps=most), known, agent_steps=steps))

    return PlanRequest(prompt, tools, faults=faults, **more)


def text_of(message: dict[str, Any]) -> str:
    text: str = message["content"]
    return text


def make_tools(count: int) -> list[Tool]:
    """Return the tools of a large server, too many for a small budget."""
    server = StdioServer(id="big", type="local_stdio", config=StdioConfig(command="x"))
    schema = {
        "type": "object",
        "properties": {"subject": {"type": "string", "description": "What it is about. " * 8}},
        "required": ["subject"],
    }
    return [
        describe_tool(
            server, ToolDefinition(name=f"do_thing_{n}", description="Does a thing. " * 20, inputSchema=schema)
        )
        for n in range(count)
    ]


ASKED_FOR = "\n\nAnswer with the plan as one JSON object."


async def test_the_answer_of_the_model_becomes_the_plan(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([GOOD])
    planner: Planner = ModelPlanner(model)
    answer = await planner.plan(make_request(tools))
    assert answer.plan == PLAN
    assert answer.usage == SPENT
    assert planner.name == "openai"
    (request,) = model.requests
    assert request.items == [{"role": "user", "content": f"Copy notes.txt to copy.txt{ASKED_FOR}"}]
    assert (request.name, request.schema, request.tools) == ("plan", build_plan_schema(tools, agent_steps=False), ())
    assert request.max_tokens is None


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Sure! Here is the plan:\n\n{GOOD}\n\nLet me know.",
        f"<think>Something like {{x}}?</think>\n{GOOD}",
        GOOD.replace("}]}", "},]}"),
        json.dumps({"plan": json.loads(GOOD)}),
        GOOD.replace('"kind":"tool",', "").replace('"arguments"', '"args"').replace('"server":"filesystem",', ""),
        GOOD.replace('"server":"filesystem","tool":"', '"tool":"filesystem.'),
    ],
)
async def test_a_slightly_wrong_answer_is_not_asked_for_again(text: str, tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([text])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN


async def test_the_model_is_told_what_the_contract_says_against_its_plan(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([BAD, GOOD])
    answer = await ModelPlanner(model).plan(make_request(tools))
    assert answer.plan == PLAN
    assert answer.usage == SPENT + SPENT
    prompt, echo, correction = model.requests[1].items
    assert prompt == model.requests[0].items[0]
    assert echo == {"role": "assistant", "content": BAD}
    assert correction["role"] == "user"
    assert "- steps[1].arguments: There is no step 's9' in the plan." in text_of(correction)
    assert model.requests[1].instructions == model.requests[0].instructions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("I am sorry.", "The answer holds no plan"),
        ("", "The answer holds no plan"),
        ('{"steps": [', "the JSON is not closed"),
        ('{"steps": []}', "steps: There must be at least one step."),
        ('{"steps": [{"id": "s1", "kind": "tool"}]}', "steps[0].server: Field required."),
        (GOOD.replace("read_file", "open"), "Server 'filesystem' has no tool 'open'; it has"),
        (GOOD.replace('"path"', '"file"'), "steps[0].arguments.path: This is required and missing."),
        (GOOD.replace("${s1.text}", "{{s1.text}}", 1), "steps[1].when"),
        (GOOD.replace('"s2"', '"s1"'), "'s1' is already the id of steps[0]"),
    ],
)
async def test_every_fault_of_an_answer_is_sent_back(text: str, told: str, tools: list[Tool]) -> None:
    if "{{" in text:
        text = text.replace("${s1.text} !=", "{{s1.text}} !=")
    model = ScriptedLanguageModel([text, GOOD])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN
    assert told in text_of(model.requests[1].items[-1])


async def test_a_correction_holds_the_last_answer_only(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel(["first", "second", GOOD])
    await ModelPlanner(model).plan(make_request(tools))
    assert [text_of(item)[:6] for item in model.requests[2].items] == ["Copy n", "second", "The an"]


async def test_after_two_corrections_the_plan_has_failed(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel(["none", "none", BAD, GOOD])
    with pytest.raises(PlanningError, match=r"asked 3 times.*steps\[1\].arguments: There is no step 's9'") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert failed.value.code == "invalid_plan"
    assert failed.value.usage == Usage(input_tokens=300, output_tokens=30)
    assert len(model.requests) == 3


@pytest.mark.parametrize(("repairs", "asked"), [(0, "asked once"), (4, "asked 5 times")])
async def test_how_often_is_repaired_is_chosen_by_who_builds_the_planner(
    repairs: int, asked: str, tools: list[Tool]
) -> None:
    model = ScriptedLanguageModel(["none"] * 9)
    with pytest.raises(PlanningError, match=asked):
        await ModelPlanner(model, repairs=repairs).plan(make_request(tools))
    assert len(model.requests) == repairs + 1


async def test_what_is_said_of_a_very_wrong_answer_is_bounded(tools: list[Tool]) -> None:
    steps = [
        {"id": f"s{n}", "kind": "tool", "server": "x" * 5000, "tool": "y\n\u202e", "arguments": {}} for n in range(90)
    ]
    model = ScriptedLanguageModel([json.dumps({"steps": steps})] * 3)
    with pytest.raises(PlanningError, match="and 81 more faults") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert len(str(failed.value)) < 4000
    assert len(text_of(model.requests[1].items[-1])) < 35_000
    assert len(text_of(model.requests[1].items[1])) < 33_000
    assert "and 61 more faults" in text_of(model.requests[1].items[-1])


async def test_a_huge_answer_is_read_off_the_event_loop_and_echoed_in_part(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel(["so " * 300_000, "so " * 100_000 + GOOD])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN
    assert len(text_of(model.requests[1].items[1])) < 33_000


async def test_each_attempt_is_kept_with_what_was_asked_and_answered(tools: list[Tool]) -> None:
    kept: list[PlanningAttempt] = []

    async def keep(attempt: PlanningAttempt) -> None:
        kept.append(attempt)

    planner = ModelPlanner(ScriptedLanguageModel([BAD, GOOD]))
    answer = await planner.plan(make_request(tools, keep=keep))
    bad, good = kept
    assert (bad.outcome, bad.answer, bad.usage) == ("invalid_plan", BAD, SPENT)
    assert [fault.field for fault in bad.faults] == ["steps[1].arguments"]
    assert bad.messages[-1].content == f"Copy notes.txt to copy.txt{ASKED_FOR}"
    assert (good.outcome, good.answer, good.faults) == ("planned", GOOD, ())
    assert good.messages[-2].content == BAD
    assert "filesystem" in good.instructions
    assert bad.usage + good.usage == answer.usage


@pytest.mark.parametrize(
    ("said", "outcome", "words"),
    [
        ('{"cannot": "No tool sends mail.\\ud800"}', "declined", "No tool sends mail.?"),
        (ModelError("It is down.", code="model_unreachable", usage=SPENT), "model_unreachable", "It is down."),
    ],
)
async def test_an_attempt_that_failed_is_kept(
    said: str | ModelError, outcome: str, words: str, tools: list[Tool]
) -> None:
    kept: list[PlanningAttempt] = []

    async def keep(attempt: PlanningAttempt) -> None:
        kept.append(attempt)

    with pytest.raises(PlanningError):
        await ModelPlanner(ScriptedLanguageModel([said])).plan(make_request(tools, keep=keep))
    (attempt,) = kept
    assert (attempt.outcome, attempt.message, attempt.usage) == (outcome, words, SPENT)
    assert attempt.instructions


@pytest.mark.parametrize("code", ["model_unreachable", "model_key_refused", "model_answer_empty"])
async def test_an_error_of_the_model_keeps_its_code_and_its_cost(code: str, tools: list[Tool]) -> None:
    error = ModelError("The key was refused: set openai.api_key.", code=code, usage=Usage(input_tokens=7))
    with pytest.raises(PlanningError, match=r"^The key was refused: set openai\.api_key\.$") as failed:
        await ModelPlanner(ScriptedLanguageModel([BAD, error])).plan(make_request(tools))
    assert failed.value.code == code
    assert failed.value.usage == Usage(input_tokens=107, output_tokens=10)


async def test_a_model_that_cannot_is_taken_at_its_word(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel(['{"cannot": "There is no tool that\\nsends mail.", "steps": []}'])
    with pytest.raises(PlanningError, match=r"cannot plan this: There is no tool that sends mail\.$") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert failed.value.code == "planning_refused"
    assert failed.value.usage == SPENT


async def test_the_answer_may_take_what_the_budget_leaves(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([BAD, GOOD])
    await ModelPlanner(model).plan(make_request(tools, max_tokens=30_000))
    first, second = (request.max_tokens for request in model.requests)
    assert first is not None
    assert second is not None
    assert 0 < second < first - SPENT.tokens < 30_000


async def test_nothing_is_asked_that_the_budget_does_not_cover(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([GOOD])
    with pytest.raises(PlanningError, match="budget of 500 tokens does not suffice") as failed:
        await ModelPlanner(model).plan(make_request(tools, max_tokens=500))
    assert failed.value.code == "budget_exceeded"
    assert model.requests == []


async def test_a_correction_that_the_budget_does_not_cover_is_not_asked_for(tools: list[Tool]) -> None:
    spent = Usage(input_tokens=19_000, output_tokens=1000)
    model = ScriptedLanguageModel([text_answer("", usage=spent), GOOD])
    with pytest.raises(PlanningError, match="does not suffice") as failed:
        await ModelPlanner(model).plan(make_request(tools, max_tokens=20_500))
    assert (failed.value.code, failed.value.usage) == ("budget_exceeded", spent)
    assert len(model.requests) == 1


async def test_the_text_is_heard_as_it_is_written(tools: list[Tool]) -> None:
    heard: list[str] = []
    await ModelPlanner(ScriptedLanguageModel([f"Here:\n{GOOD}"])).plan(make_request(tools, on_text=heard.append))
    assert heard == ["Here:\n", GOOD]


async def test_a_revision_sends_the_plan_and_all_that_was_said(tools: list[Tool]) -> None:
    usual = next(tool.timeout_s for tool in tools if tool.name == "read_file")
    filled = PLAN.model_copy(
        update={"steps": (PLAN.steps[0].model_copy(update={"timeout_s": usual, "title": "Read"}), PLAN.steps[1])}
    )
    model = ScriptedLanguageModel([GOOD])
    await ModelPlanner(model).plan(make_request(tools, previous=filled, feedback=("Shorter.", "And\nin French.")))
    prompt, before, said = model.requests[0].items
    assert prompt["content"] == f"Copy notes.txt to copy.txt{ASKED_FOR}"
    assert before["role"] == "assistant"
    assert json.loads(text_of(before))["steps"][0] == {
        "id": "s1",
        "kind": "tool",
        "title": "Read",
        "server": "filesystem",
        "tool": "read_file",
        "arguments": {"path": "notes.txt"},
    }
    assert "1. Shorter.\n2. And\nin French.\n" in text_of(said)


async def test_a_prompt_of_any_characters_can_be_sent(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([GOOD])
    await ModelPlanner(model).plan(make_request(tools, prompt="Copy \ud800 {braces} %s"))
    assert model.requests[0].items[0]["content"] == "Copy ? {braces} %s" + ASKED_FOR


async def test_the_catalogue_is_in_the_instructions_and_stays_within_its_budget(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([GOOD, GOOD])
    await ModelPlanner(model).plan(make_request(tools))
    for tool in tools:
        assert f"\n{tool.server}.{tool.name}(" in model.requests[0].instructions
    await ModelPlanner(model, catalogue_tokens=300).plan(make_request([*tools, *make_tools(300)]))
    assert len(model.requests[1].instructions) < len(model.requests[0].instructions)
    assert "more tools were left out" in model.requests[1].instructions


async def test_a_tool_that_was_left_out_is_shown_once_it_is_named(tools: list[Tool]) -> None:
    known = [*tools, *make_tools(300)]
    step = {"id": "s1", "kind": "tool", "server": "big", "tool": "do_thing_250", "arguments": {"topic": "x"}}
    good = json.dumps({"steps": [{**step, "arguments": {"subject": "x"}}]})
    model = ScriptedLanguageModel([json.dumps({"steps": [step]}), good])
    await ModelPlanner(model, catalogue_tokens=2000).plan(make_request(known))
    assert "do_thing_250" not in model.requests[0].instructions
    correction = text_of(model.requests[1].items[-1])
    assert '"tool":"do_thing_250"' in correction
    assert '"arguments_schema":{"type":"object","properties":{"subject"' in correction


async def test_for_a_tool_that_there_is_not_the_nearest_are_shown(tools: list[Tool]) -> None:
    known = [*make_tools(300), *tools]
    model = ScriptedLanguageModel([GOOD.replace("read_file", "files_read"), GOOD])
    await ModelPlanner(model, catalogue_tokens=150).plan(make_request(known, prompt="Do thing 7"))
    correction = text_of(model.requests[1].items[-1])
    assert '"tool":"read_file"' in correction
    assert correction.count("arguments_schema") <= 8


async def test_of_many_tools_that_were_left_out_each_is_shown_once_and_no_more_than_eight() -> None:
    steps = [{"id": f"s{n}", "kind": "tool", "server": "big", "tool": f"do_thing_{200 + n % 12}"} for n in range(15)]
    model = ScriptedLanguageModel([json.dumps({"steps": steps}), GOOD, GOOD])
    with pytest.raises(PlanningError):
        await ModelPlanner(model, catalogue_tokens=500).plan(make_request(make_tools(300)))
    shown = re.findall(r'"tool":"(do_thing_\d+)"', text_of(model.requests[1].items[-1]))
    assert shown == [f"do_thing_{200 + n}" for n in range(8)]


async def test_a_tool_that_was_shown_in_full_is_not_shown_again(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([BAD, GOOD])
    await ModelPlanner(model).plan(make_request(tools))
    assert "arguments_schema" not in text_of(model.requests[1].items[-1])


async def test_the_tools_of_the_previous_plan_are_always_shown(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([GOOD])
    request = make_request([*make_tools(300), *tools], previous=PLAN, feedback=("do thing do thing",))
    await ModelPlanner(model, catalogue_tokens=1500).plan(request)
    for name in ("read_file", "write_file"):
        assert re.search(rf"\nfilesystem\.{name}\(path: text", model.requests[0].instructions)


async def instructions(tools: list[Tool], *, agent_steps: bool) -> str:
    model = ScriptedLanguageModel([GOOD])
    await ModelPlanner(model).plan(make_request(tools, max_steps=17, agent_steps=agent_steps))
    return model.requests[0].instructions


async def test_the_references_and_conditions_of_the_instructions_can_be_read(tools: list[Tool]) -> None:
    told = (await instructions(tools, agent_steps=True)).partition("# The catalogue")[0]
    conditions = (
        told.partition("A CONDITION is like")[2].partition("brackets:\n")[2].partition("\nIt compares")[0].splitlines()
    )
    assert len(conditions) == 3
    for condition in conditions:
        assert read_condition(condition).references
    assert read_condition(" and not ".join(f"({condition})" for condition in conditions))
    references = re.findall(r"(?<!\$)\$\{[^{}\n]*\}", told)
    assert len(references) == 5
    for reference in references:
        assert parse_template(reference)
    assert "{{" not in told
    assert "at most 17." in told


async def test_every_field_of_a_plan_is_explained_but_the_one_that_is_the_persons(tools: list[Tool]) -> None:
    told = await instructions(tools, agent_steps=True)
    models = (Plan, ToolStep, AgentStep, AllowedTool)
    fields = {name for model in models for name in model.model_fields} - {"preapproved"}
    schema = json.dumps(build_general_schema(agent_steps=True))
    for name in fields:
        assert f'"{name}"' in told
        assert f'"{name}"' in schema
    assert "preapproved" not in told + schema


async def test_agent_steps_are_spoken_of_only_where_there_may_be_some(tools: list[Tool]) -> None:
    told = (await instructions(tools, agent_steps=False)).partition("# The catalogue")[0]
    for word in ('"agent"', 'instruction"', "max_calls"):
        assert word not in told
        assert word not in json.dumps(build_general_schema(agent_steps=False))
    assert '"kind": "agent"' in (await instructions(tools, agent_steps=True))


@pytest.mark.slow
@given(plan=PLANS)
def test_any_plan_follows_the_schema(plan: Plan) -> None:
    schema = build_general_schema(agent_steps=True)
    Draft202012Validator.check_schema(schema)
    steps = [step.model_dump(mode="json", exclude_none=True, exclude={"preapproved"}) for step in plan.steps]
    Draft202012Validator(schema).validate({"goal": plan.goal, "steps": steps})


def test_the_schema_lets_the_model_decline_and_refuses_what_is_unknown() -> None:
    schema = Draft202012Validator(build_general_schema(agent_steps=False))
    assert schema.is_valid({"cannot": "no mail", "steps": []})
    assert not schema.is_valid(
        {"steps": [{"id": "s1", "kind": "agent", "title": "t", "instruction": "i", "tools": []}]}
    )
    assert not schema.is_valid({"steps": [], "why": "w"})
    assert not schema.is_valid({})


async def test_a_script_that_has_ended_is_an_error_of_the_model(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([])
    assert model.status().circuit == "closed"
    with pytest.raises(PlanningError, match="The script has 0 answers") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert failed.value.code == "model_failed"
