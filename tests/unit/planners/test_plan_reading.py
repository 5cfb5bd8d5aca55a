import json
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import InvalidPlanError
from agent_runtime.domain.plan import LONGEST_REASONING, AgentStep, Plan, ToolStep
from agent_runtime.domain.tools import StdioConfig, StdioServer, Tool, ToolDefinition, describe_tool
from agent_runtime.planners.model.plan_reader import Declined, find_named_tools, read_plan
from unit.planners.planning import all_tools


def tool(server: str, name: str) -> Tool:
    entry = StdioServer(id=server, type="local_stdio", config=StdioConfig(command="x"))
    return describe_tool(entry, ToolDefinition(name=name))


TOOLS = [
    tool("files", "read"),
    tool("files", "copy"),
    tool("web", "copy"),
    tool("web", "web.get"),
    tool("odd", "files.read"),
]
READ = {"id": "s1", "kind": "tool", "server": "web", "tool": "web.get"}


def read(*steps: Any, **rest: Any) -> Plan:
    return read_plan(json.dumps({"goal": "g", "steps": steps, **rest}), TOOLS, "the prompt")


def step_of(**changes: Any) -> ToolStep:
    step = {**READ, **changes}
    (found,) = read({name: value for name, value in step.items() if value != "LEFT OUT"}).steps
    assert isinstance(found, ToolStep)
    return found


def agent_of(**fields: Any) -> AgentStep:
    (found,) = read({"id": "s1", "instruction": "Think", **fields}).steps
    assert isinstance(found, AgentStep)
    return found


WHOLE = Plan.model_validate({"goal": "g", "steps": [READ]})


@pytest.mark.parametrize(
    "answer",
    [
        {"goal": "g", "steps": [READ]},
        {"plan": {"goal": "g", "steps": [READ]}},
        {"plan": {"goal": "g", "steps": [READ]}, "reasoning": "because"},
        {"goal": "g", "plan": [READ]},
        {"goal": "g", "steps": [READ], "explanation": "It reads.", "cannot": None},
        {"goal": "g", "steps": [READ], "cannot": ""},
    ],
)
def test_a_wrapped_plan_is_the_plan_inside(answer: Any) -> None:
    assert read_plan(json.dumps(answer), TOOLS, "the prompt") == WHOLE


def test_a_bare_list_of_steps_is_a_plan_for_the_prompt() -> None:
    assert read_plan(json.dumps([READ]), TOOLS, "the prompt") == Plan(goal="the prompt", steps=WHOLE.steps)


def test_a_goal_of_which_nothing_can_be_read_is_the_prompt() -> None:
    assert read(READ, goal="\u3164 ").goal == "the prompt"


def test_what_stands_beside_a_wrapped_plan_is_not_passed_over() -> None:
    with pytest.raises(InvalidPlanError, match="holds no plan"):
        read_plan(json.dumps({"plan": {"steps": [READ]}, "only_if": "it is Monday"}), TOOLS, "p")
    with pytest.raises(InvalidPlanError, match="only_if: There is no such field"):
        read_plan(json.dumps({"plan": [READ], "only_if": "it is Monday"}), TOOLS, "p")


OTHER = {"goal": "g", "steps": [{**READ, "id": "s2"}]}
PLAN, DRAFT = json.dumps({"goal": "g", "steps": [READ]}), json.dumps(OTHER)


@pytest.mark.parametrize("second", [DRAFT, json.dumps([{**READ, "id": "s2"}]), '{"steps": [', '{"cannot": "I cannot"}'])
def test_two_different_plans_are_no_plan(second: str) -> None:
    with pytest.raises(InvalidPlanError, match="several plans that differ"):
        read_plan(f"{json.dumps({'x': 1})} {PLAN}\n\nOr: {second}", TOOLS, "p")


def test_the_same_plan_twice_is_one_plan() -> None:
    turned = json.dumps({"steps": [dict(reversed(READ.items()))], "goal": "g"}, indent=1)
    assert read_plan(f"{PLAN}\nAgain: {turned}\nwith {{no: step}} left out", TOOLS, "p") == WHOLE


@pytest.mark.parametrize(
    "text",
    [
        f"<think>Maybe {DRAFT}? No.</think>{PLAN}",
        f"Sure <think>Maybe {DRAFT}? No.</think>{PLAN}",
        f"Okay, maybe {DRAFT}? No</think>{PLAN}",
        f'Okay, {{"steps": [ ... ]}} it is.\n</think>\n{PLAN}',
        f'Okay, {{"steps": [{{"id": "s1\n</think>\n\n```json\n{PLAN}\n```',
        f"<thinking>{DRAFT}</thinking>{PLAN}",
        f"<reasoning>{DRAFT}</reasoning>{PLAN}",
        f"[THINK]{DRAFT}[/THINK]{PLAN}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{PLAN}",
        f"{PLAN}\n<think>\nOr rather {DRAFT}",
        f"The <think> tag is searched for: {PLAN}",
        f"<think>{DRAFT}</think>\n{json.dumps(PLAN)}",
    ],
)
def test_a_draft_in_the_thoughts_is_never_the_plan(text: str) -> None:
    assert read_plan(text, TOOLS, "p") == WHOLE


@pytest.mark.parametrize(
    "text", [f"<think>{DRAFT}", f"{DRAFT}\n</think>", f"<think>\nHm.\n</think>\nDone: {DRAFT}</think>"]
)
def test_an_answer_of_thoughts_alone_is_a_fault_that_says_so(text: str) -> None:
    with pytest.raises(InvalidPlanError, match="no JSON follows your thoughts"):
        read_plan(text, TOOLS, "p")


@pytest.mark.parametrize(
    "word", ["<think>", "</think>", "<think>a</think>", "x.\n</think>\n{}", "<|channel|>final<|message|>"]
)
def test_marks_in_the_strings_of_a_plan_are_text(word: str) -> None:
    step = {**READ, "arguments": {"text": word}}
    (found,) = read_plan(json.dumps({"goal": "g", "steps": [step]}, indent=1), TOOLS, "p").steps
    assert isinstance(found, ToolStep)
    assert found.arguments == {"text": word}


@pytest.mark.parametrize(
    "text",
    [json.dumps(PLAN), f"```json\n{json.dumps(PLAN)}\n```", json.dumps({"plan": PLAN}), f" {json.dumps(PLAN)}\n"],
)
def test_a_plan_that_is_text_in_json_is_read(text: str) -> None:
    assert read_plan(text, TOOLS, "p") == WHOLE


def test_nothing_after_a_broken_plan_is_taken_for_one() -> None:
    text = '{"goal": "g" "steps": [{"arguments": ' + json.dumps({"steps": [READ]}) + "}]}"
    with pytest.raises(InvalidPlanError, match="wrong in line 1"):
        read_plan(text, TOOLS, "p")


def test_a_mark_in_a_string_of_a_broken_plan_does_not_end_thoughts() -> None:
    text = f'{{"goal": "cut </think> tags" "steps": {json.dumps([READ])}}}'
    with pytest.raises(InvalidPlanError, match="wrong in line 1"):
        read_plan(text, TOOLS, "p")


def test_a_plan_inside_the_arguments_of_a_broken_plan_is_not_taken() -> None:
    text = '{"steps": [{"arguments": ' + json.dumps({"steps": [READ]})
    with pytest.raises(InvalidPlanError, match="not closed"):
        read_plan(text, TOOLS, "p")


@pytest.mark.parametrize(
    "text", ["", "I cannot do that.", "{}", "[]", '{"type": "object"}', "[1, 2]", json.dumps(READ)]
)
def test_a_text_without_a_plan_is_a_fault(text: str) -> None:
    with pytest.raises(InvalidPlanError, match="holds no plan"):
        read_plan(text, TOOLS, "p")


@pytest.mark.parametrize(
    "answer",
    ['{"cannot": "no mail", "steps": []}', 'Sorry: {"cannot": "no mail"}', '{"cannot": "no mail", "steps": null}'],
)
def test_a_model_may_say_that_it_cannot(answer: str) -> None:
    with pytest.raises(Declined, match="no mail"):
        read_plan(answer, TOOLS, "p")


def test_a_plan_that_also_says_that_it_cannot_is_a_fault() -> None:
    with pytest.raises(InvalidPlanError, match="not both"):
        read(READ, cannot="no mail")


def test_the_kind_follows_from_what_the_step_holds() -> None:
    assert step_of(kind="LEFT OUT").kind == "tool"
    assert step_of(kind=None).kind == "tool"
    assert agent_of().kind == "agent"
    assert agent_of(server=None, tool="", arguments={}).kind == "agent"


@pytest.mark.parametrize("name", ["args", "parameters", "params", "input"])
def test_arguments_may_go_by_another_name(name: str) -> None:
    assert step_of(**{name: {"a": 1}}).arguments == {"a": 1}


def test_arguments_may_be_an_object_in_a_string() -> None:
    assert step_of(arguments='{"a": "{\\"b\\": 1}"}').arguments == {"a": '{"b": 1}'}


def test_numbers_become_ids() -> None:
    first, second = read({**READ, "id": 1}, {**READ, "id": "2", "depends_on": 1}).steps
    assert (first.id, second.id, second.depends_on) == ("s1", "s2", ("s1",))


def test_steps_without_any_id_are_numbered() -> None:
    bare = {name: value for name, value in READ.items() if name != "id"}
    assert [step.id for step in read(bare, {**bare, "id": None}).steps] == ["s1", "s2"]


def test_a_dependency_may_stand_alone() -> None:
    assert read({**READ, "id": "a"}, {**READ, "depends_on": "a"}).steps[1].depends_on == ("a",)


def test_what_is_null_or_empty_says_nothing() -> None:
    nothing: dict[str, Any] = {
        "depends_on": None,
        "when": None,
        "timeout_s": None,
        "retries": None,
    }
    assert step_of(**nothing, arguments=None, title=None, instruction="", tools=[]) == WHOLE.steps[0]
    assert step_of(when="") == step_of(when=" ", title="\u200b") == WHOLE.steps[0]


@pytest.mark.parametrize("said", [True, False, None, "yes", {"by": "the operator"}])
def test_a_model_cannot_approve_beforehand(said: Any) -> None:
    assert step_of(preapproved=said) == WHOLE.steps[0]
    agent = {"kind": "agent", "instruction": "Do it.", "tools": [], "preapproved": said}
    assert read(agent).steps[0].preapproved is False


def test_the_reasoning_of_a_step_is_kept_as_far_as_a_plan_may_hold_it() -> None:
    assert step_of(reasoning="It holds the notes.").reasoning == "It holds the notes."
    assert len(step_of(reasoning="because " * 1000).reasoning) == LONGEST_REASONING
    assert step_of(reasoning=" ") == WHOLE.steps[0]


def test_remarks_are_dropped() -> None:
    assert step_of(why="w", reasoning={"deep": [1]}, output="o", description="d", notes=["n"]) == WHOLE.steps[0]


@pytest.mark.parametrize(
    ("server", "name", "meant"),
    [
        ("files", "read", ("files", "read")),
        ("LEFT OUT", "files.copy", ("files", "copy")),
        ("LEFT OUT", "files/copy", ("files", "copy")),
        (None, "files/read", ("files", "read")),
        ("files", "files.read", ("files", "read")),
        ("odd", "files.read", ("odd", "files.read")),
        ("web", "web.get", ("web", "web.get")),
        ("", "read", ("files", "read")),
        ("LEFT OUT", "web.get", ("web", "web.get")),
    ],
)
def test_a_tool_is_found_where_only_one_can_be_meant(server: Any, name: str, meant: tuple[str, str]) -> None:
    step = step_of(server=server, tool=name)
    assert (step.server, step.tool) == meant


@pytest.mark.parametrize("name", ["copy", "files.read", "files.nothing", "unknown", "files:read", "read "])
def test_a_tool_without_a_server_is_a_fault_where_several_or_none_can_be_meant(name: str) -> None:
    with pytest.raises(InvalidPlanError, match=r"steps\[0\].server: Field required"):
        step_of(server="LEFT OUT", tool=name)


@pytest.mark.parametrize(("server", "name"), [("web", "files.read"), ("other", "read"), ("files", "delete")])
def test_a_server_that_is_named_is_never_changed(server: str, name: str) -> None:
    assert (step_of(server=server, tool=name).server, step_of(server=server, tool=name).tool) == (server, name)


def test_the_tools_of_an_agent_step_are_found_in_the_same_way() -> None:
    allowed = agent_of(
        tools=["files.copy", {"tool": "read", "max_calls": 3, "why": "w"}, {"server": "x", "tool": "y"}]
    ).tools
    assert [(one.server, one.tool, one.max_calls) for one in allowed] == [
        ("files", "copy", 1),
        ("files", "read", 3),
        ("x", "y", 1),
    ]


def test_references_and_conditions_are_left_as_they_are() -> None:
    arguments = {"a": "{{s1.text}}", "b": "${1.text}", "c": "$s1"}
    step = step_of(arguments=arguments, when="{{s1.text}}")
    assert (step.arguments, step.when) == (arguments, "{{s1.text}}")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"colour": "red"}, r"steps\[0\].colour: There is no such field; there are id, title, "),
        ({"arguments": {}, "args": {"a": 1}}, r"steps\[0\].args: There is no such field"),
        ({"params": {}, "args": {"a": 1}}, r"steps\[0\].args: There is no such field"),
        ({"arguments": "path"}, r"steps\[0\].arguments: Input should be a valid dictionary"),
        ({"arguments": "[1]"}, r"steps\[0\].arguments: Input should be a valid dictionary"),
        ({"arguments": '{"a": 1,}'}, r"steps\[0\].arguments: Input should be a valid dictionary"),
        ({"kind": "call"}, r"steps\[0\]: The field kind must be 'tool'"),
        ({"kind": None, "instruction": "Think"}, r"steps\[0\]: The field kind must be 'tool'"),
        ({"instruction": "Think"}, r"steps\[0\].instruction: There is no such field"),
        ({"id": "a b"}, r"steps\[0\].id: "),
        ({"id": True}, r"steps\[0\].id: "),
        ({"tool": 3}, r"steps\[0\].tool: "),
        ({"depends_on": {"a": 1}}, r"steps\[0\].depends_on\[0\]: "),
    ],
)
def test_what_no_rule_covers_is_a_fault(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidPlanError, match=fault):
        step_of(**changes)


def test_what_is_wrong_with_the_tools_of_an_agent_step_is_a_fault() -> None:
    with pytest.raises(InvalidPlanError) as wrong:
        agent_of(tools=[{"server": "files", "tool": "read", "arguments": {}}, 3, {"server": "files"}])
    assert [fault.field for fault in wrong.value.faults] == [
        "steps[0].tools[0].arguments",
        "steps[0].tools[1]",
        "steps[0].tools[2].tool",
    ]
    assert wrong.value.faults[0].message == "There is no such field; there are server, tool, max_calls, timeout_s."


def test_unknown_fields_of_the_plan_are_faults() -> None:
    with pytest.raises(InvalidPlanError, match="budget: There is no such field; there are goal, steps"):
        read(READ, budget=3)


def test_steps_that_are_no_objects_are_faults() -> None:
    with pytest.raises(InvalidPlanError, match=r"steps\[1\]: "):
        read(READ, "then stop")
    with pytest.raises(InvalidPlanError, match="steps: "):
        read_plan('{"steps": {"s1": {}}}', TOOLS, "p")


def test_the_tools_that_an_answer_names_are_listed() -> None:
    answer = json.dumps(
        {"steps": [READ, 3, {"tool": "x"}, {"tools": [{"server": "a", "tool": "b"}, 1]}, {"tools": 3, "tool": 4}]}
    )
    assert find_named_tools(answer) == [("web", "web.get"), ("", "x"), ("a", "b")]
    assert find_named_tools("no plan") == []


async def test_the_built_in_tools_are_found_by_their_bare_names(tmp_path: Path) -> None:
    tools = await all_tools(tmp_path)
    for each in tools:
        if sum(other.name == each.name for other in tools) == 1:
            answer = json.dumps([{"tool": each.name}])
            (step,) = read_plan(answer, tools, "p").steps
            assert isinstance(step, ToolStep)
            assert (step.server, step.tool) == (each.server, each.name)
