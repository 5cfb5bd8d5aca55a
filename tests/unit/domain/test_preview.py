"""The preview of a plan, from its contract alone."""

from collections.abc import Mapping
from typing import Any

import pytest

from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.preview import StepPreview, Touch, notes_on_names, preview_steps
from agent_runtime.domain.task import AskedCall, Task
from agent_runtime.domain.tools import Effect, ToolDefinition

SCHEMA = {
    "properties": {
        "where": {"type": "string", "format": "uri"},
        "many": {"type": "array", "items": {"type": "string", "format": "uri"}},
        "broken": True,
        "odd": {"format": ["uri"]},
    }
}


def step(name: str, tool: str = "read", *needs: str, **arguments: Any) -> ToolStep:
    return ToolStep(id=name, kind="tool", server="f", tool=tool, arguments=arguments, depends_on=needs)


def preview_all(*steps: ToolStep | AgentStep, asks: Mapping[str, str] | None = None) -> list[StepPreview]:
    return preview_steps(task_of(*steps, asks=asks))


def task_of(*steps: ToolStep | AgentStep, asks: Mapping[str, str] | None = None) -> Task:
    policy = {
        "f/read": PinnedPolicy(effect=Effect.READ, idempotent=True, approval="plan"),
        "f/write": PinnedPolicy(effect=Effect.WRITE, idempotent=False, approval="plan"),
        "f/run": PinnedPolicy(effect=Effect.UNKNOWN, idempotent=False, approval="plan"),
    }
    contract = Contract(goal="g", steps=steps, limits=Limits(), policy=policy, pins={}, asks=asks or {})
    definitions = {key: ToolDefinition(name=key.partition("/")[2], inputSchema=SCHEMA) for key in policy}
    return Task("t", contract=contract, definitions=definitions)


def find_touches(**arguments: Any) -> list[tuple[str | None, str | None, bool]]:
    (preview,) = preview_all(step("s1", **arguments))
    return [(touch.argument, touch.value, touch.resolved) for touch in preview.touches]


def test_a_step_says_its_effect_and_what_it_waits_on() -> None:
    first, second, third = preview_all(step("s1"), step("s2", "write", x="${s1.text}"), step("s3", "read", "s2", "s1"))
    assert (first.effect, first.idempotent, first.waits_on, first.asks) == (Effect.READ, True, (), None)
    assert (second.effect, second.idempotent, second.waits_on) == (Effect.WRITE, False, ("s1",))
    assert third.waits_on == ("s1", "s2")


@pytest.mark.parametrize(
    "name",
    ["path", "file", "url", "uri", "directory", "base_url", "baseURL", "fileName", "outputPath", "PATH", "where"],
)
def test_an_argument_that_names_something_is_shown(name: str) -> None:
    assert find_touches(**{name: "a.txt"}) == [(name, "a.txt", True)]


@pytest.mark.parametrize("name", ["content", "pathology", "profile", "text", "broken", "odd", "x" * 5])
def test_an_argument_that_names_nothing_is_not_shown(name: str) -> None:
    assert find_touches(**{name: "a.txt"}) == []


def test_only_strings_are_shown_wherever_they_are() -> None:
    assert find_touches(path=7, url=None, file=["a", 1, "b"], many=["c"], to={"path": "d", "text": "e"}) == [
        ("file[0]", "a", True),
        ("file[2]", "b", True),
        ("many[0]", "c", True),
        ("to.path", "d", True),
    ]


def test_a_reference_is_shown_as_one() -> None:
    (_, preview) = preview_all(step("s0"), step("s1", path="${s0.text}", url="$${no}"))
    assert preview.touches == (
        Touch("f", "read", "path", "${s0.text}", resolved=False),
        Touch("f", "read", "url", "$${no}", resolved=True),
    )


def test_an_agent_step_has_the_worst_effect_of_its_tools() -> None:
    tools = (AllowedTool(server="f", tool="read"), AllowedTool(server="f", tool="run"))
    work = AgentStep(id="s1", kind="agent", instruction="x", tools=tools)
    text = AgentStep(id="s2", kind="agent", instruction="${s1.text}")
    first, second = preview_all(work, text)
    assert (first.effect, first.idempotent) == (Effect.UNKNOWN, False)
    assert first.touches == tuple(Touch("f", tool, resolved=False) for tool in ("read", "run"))
    assert (second.effect, second.idempotent, second.touches, second.waits_on) == (Effect.READ, True, (), ("s1",))


def test_a_step_that_asks_for_its_call_says_why() -> None:
    read, write = preview_all(step("s1"), step("s2", "write"), asks={"s2": "the operator wants it"})
    assert (read.asks, write.asks) == (None, "the operator wants it")


def test_without_a_plan_there_is_nothing_to_show() -> None:
    assert preview_steps(Task("t")) == []


def notes(task: Task, call: AskedCall | None = None) -> list[str]:
    return notes_on_names(task, preview_steps(task), call)


def test_names_that_cannot_be_told_apart_are_pointed_out() -> None:
    task = task_of(
        step("s1", path="report.txt", text="a"),
        step("s2", "write", path="report.txt\u3164", text="a\u200b", **{"pa\u200bth": {"to": 1, "to\ufe0f": 2}}),
    )
    assert notes(task) == [
        r'Look closely: "path" and "pa\u200bth" differ only in invisible characters.',
        r'Look closely: "to" and "to\ufe0f" differ only in invisible characters.',
        r'Look closely: "report.txt" and "report.txt\u3164" differ only in invisible characters.',
    ]
    assert notes(task_of(step("s1", path="a"), step("s2", path="A"))) == []


def test_the_names_in_a_call_are_compared_with_those_of_the_plan() -> None:
    task = task_of(step("s1", path="report.txt"), step("s2", "write", path="${s1.text}"))
    alike = AskedCall("c", "f", "write", {"path": "report.txt\u2800"}, "d", "why")
    assert notes(task, alike) == [
        r'Look closely: "report.txt" and "report.txt\u2800" differ only in invisible characters.'
    ]
    assert notes(task, AskedCall("c", "f", "write", {"path": "report.txt"}, "d", "why")) == []
