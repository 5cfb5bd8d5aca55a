"""Revisions by the offline planner: wishes about a plan, and further instructions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import AgentStep, Plan, ToolStep
from agent_runtime.domain.tools import Tool
from unit.planners.corpus import REVISED, REVISIONS_REFUSED, Steps
from unit.planners.planning import all_tools, plan, revise, steps_of


@pytest.fixture
async def tools() -> list[Tool]:
    return await all_tools()


@pytest.mark.parametrize(
    ("prompt", "feedback", "expected"), REVISED, ids=[" / ".join((row[0], *row[1])) for row in REVISED]
)
async def test_a_wish_changes_the_plan_before_it(
    prompt: str, feedback: list[str], expected: Steps, tools: list[Tool]
) -> None:
    made = await revise(prompt, feedback, tools)
    assert steps_of(made) == expected
    assert not list(find_faults(made, Limits(), {tool.key: tool for tool in tools}, agent_steps=False))
    assert made.goal == "\n".join((prompt, *feedback))


@pytest.mark.parametrize(
    ("prompt", "feedback", "part"), REVISIONS_REFUSED, ids=[" / ".join((row[0], *row[1])) for row in REVISIONS_REFUSED]
)
async def test_a_wish_in_doubt_is_refused_with_what_can_be_said(
    prompt: str, feedback: list[str], part: str, tools: list[Tool]
) -> None:
    with pytest.raises(PlanningError) as refused:
        await revise(prompt, feedback, tools)
    assert f'The part "{part}"' in str(refused.value)
    assert "'also ...', 'instead ...', 'call it b.txt'" in str(refused.value)


def edit(made: Plan) -> Plan:
    """Return the plan as a person edits it: another file is read."""
    first = made.steps[0]
    assert isinstance(first, ToolStep)
    changed = first.model_copy(update={"arguments": {"path": "edited.txt"}})
    return made.model_copy(update={"steps": (changed, *made.steps[1:])})


async def test_an_edited_plan_is_what_the_wish_changes(tools: list[Tool]) -> None:
    edited = edit(await plan("Read notes.txt and save it to b.txt", tools))
    made = await revise("Read notes.txt and save it to b.txt", ["call it c.txt"], tools, edited)
    assert steps_of(made) == [
        ("read_file", {"path": "edited.txt"}),
        ("write_file", {"path": "c.txt", "content": "${s1.text}"}),
    ]
    made = await revise("Read notes.txt and save it to b.txt", ["also list my todos"], tools, edited)
    assert [step.id for step in made.steps] == ["s1", "s2", "s3"]
    assert made.steps[2].depends_on == ("s2",)


@pytest.mark.parametrize("feedback", ["also summarize it", "list my todos", "add 1 and 2 instead"])
async def test_words_about_a_plan_that_somebody_edited_must_stand_for_themselves(
    feedback: str, tools: list[Tool]
) -> None:
    edited = edit(await plan("Read notes.txt", tools))
    with pytest.raises(PlanningError):
        await revise("Read notes.txt", [feedback], tools, edited)


async def test_a_step_keeps_its_place_in_the_order_when_one_before_it_is_left_out(tools: list[Tool]) -> None:
    made = await revise("Read a.txt, save it to b.txt, then list my todos", ["without writing"], tools)
    assert [(step.id, step.depends_on) for step in made.steps] == [("s1", ()), ("s3", ("s1",))]
    made = await revise(
        "Read a.txt, save it to b.txt, then list my todos", ["without writing", "also list the files"], tools
    )
    assert [(step.id, step.depends_on) for step in made.steps] == [("s1", ()), ("s3", ("s1",)), ("s4", ("s3",))]


async def test_the_instruction_of_a_model_is_not_changed_by_a_word(tools: list[Tool]) -> None:
    agent = AgentStep(kind="agent", id="a", instruction="Improve notes.txt")
    before = Plan(steps=(*(await plan("Read notes.txt", tools)).steps, agent))
    with pytest.raises(PlanningError, match="instruction of step a, which a model follows: edit the plan"):
        await revise("Read notes.txt", ["use b.txt instead of notes.txt"], tools, before)


async def test_titles_and_conditions_follow_the_wish(tools: list[Tool]) -> None:
    made = await revise("If notes.txt exists, copy notes.txt to b.txt", ["use c.txt instead of notes.txt"], tools)
    assert [step.title for step in made.steps] == ["Find files named c.txt", "Copy c.txt to b.txt"]
    assert made.steps[1].when == '"c.txt" in ${s1.output.matches}'


@pytest.mark.parametrize(
    "feedback", ["use s1 instead of 15", "use 0 instead of ${s1.text}", "instead " * 900, ", " * 900]
)
async def test_odd_feedback_is_refused(feedback: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError):
        await revise("Add 15 and 27, then double it", [feedback], tools)


async def test_a_wrong_letter_in_feedback_is_asked_about(tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match='Did you mean "summarize" instead of "sumarize"'):
        await revise("Read notes.txt", ["also sumarize it"], tools)


SAID = [
    "call it", "b.txt", "use", "instead", "instead of", "a.txt", "without", "writing", "also", "read", "it", "then",
    "15", "27", "replace", "with", "and", ",", "don't", "write", "hello", "to", '"hello"', "not", "save", "summarize",
    "s1",
]  # fmt: skip
"""The words of wishes. Random sequences of them reach combinations that nobody thinks of."""


@settings(max_examples=150, deadline=None)
@given(
    prompt=st.sampled_from(
        ["Write hello to a.txt and read a.txt", "Add 15 and 27", "If a.txt exists, copy a.txt to b.txt", "Read a file"]
    ),
    feedback=st.lists(st.lists(st.sampled_from(SAID), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=2),
)
async def test_any_feedback_gives_a_plan_without_faults_or_is_refused(prompt: str, feedback: list[str]) -> None:
    tools = await all_tools()
    try:
        made = await revise(prompt, feedback, tools)
    except PlanningError:
        return
    assert not list(find_faults(made, Limits(), {tool.key: tool for tool in tools}, agent_steps=False))
