"""The views of tasks at every point of any legal journal."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent_runtime.api import shapes
from agent_runtime.api.views import answer, plan_text, task_view, time_of
from agent_runtime.domain import events as ev
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from agent_runtime.text.escaping import one_line
from journals import CONTRACT, plan_proposed, some_step, task_claimed, task_submitted, tool_called

AT = datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC)


def states(random: Random) -> Iterator[Task]:
    """Return the states of a random legal journal."""
    task = Task("task_1")
    while task.version < 40 and (step := some_step(task, random)):
        events, epoch = step
        for event in events:
            task = evolve(task, ev.make_record(task.task_id, task.version + 1, epoch, AT, event))
            yield task


@given(st.randoms(use_true_random=False))
def test_every_view_has_the_documented_shape(random: Random) -> None:
    shape = TypeAdapter(shapes.TaskView)
    for task in states(random):
        view = json.loads(bytes(answer(task_view(task)).body))
        assert set(view) == set(shapes.TaskView.__annotations__)
        shape.validate_json(json.dumps(view))
        for step in view["steps"]:
            assert set(step) == set(shapes.StepView.__annotations__)
        assert bool(view["attention"]) == (task.status is TaskStatus.NEEDS_ATTENTION and not task.cancel_requested)


@given(st.randoms(use_true_random=False))
def test_the_result_says_what_there_is_to_read_in_every_status(random: Random) -> None:
    for task in states(random):
        view = task_view(task)
        said = view["result"]
        running = [step for step in view["steps"] if step["status"] == "running"]
        if task.status is TaskStatus.COMPLETED:
            assert said == task.result
        elif task.status is TaskStatus.EXECUTING:
            assert [line.partition(" is running: ")[2] for line in (said or "").splitlines()] == [
                one_line(step["title"], 200) for step in running
            ]
        elif view["attention"]:
            for line, asked in zip((said or "").splitlines(), view["attention"], strict=True):
                assert asked["kind"] != "journal_changed"
                assert line.startswith(f"Step {asked['step_id']} asks a person: ")
                where = "/resolve" if asked["kind"] == "outcome_unknown" else f"/calls/{asked['call_id']}/approve"
                assert f"POST /v1/tasks/{task.task_id}{where}" in line
        else:
            assert said == (task.error.message if task.error else None)


@given(st.randoms(use_true_random=False))
def test_the_plan_that_is_shown_is_the_one_that_the_digest_is_of(random: Random) -> None:
    for task in states(random):
        view = json.loads(bytes(answer(task_view(task)).body))
        if view["plan_object"] is None:
            assert view["plan_digest"] is None
        else:
            shown = rfc8785.dumps(view["plan_object"])
            assert view["plan_digest"] == "sha256:" + hashlib.sha256(shown).hexdigest()


def test_the_plan_reads_as_numbered_lines() -> None:
    steps: list[ToolStep | AgentStep] = [
        ToolStep(id="s1", kind="tool", title="Read", server="files", tool="read", arguments={"path": "a\nb", "n": 1}),
        ToolStep(id="s2", kind="tool", title="files.list", server="files", tool="list"),
        AgentStep(id="s3", kind="agent", title="Think\nhard", instruction="x"),
        AgentStep(
            id="s4", kind="agent", title="Do", instruction="x", tools=(AllowedTool(server="files", tool="read"),)
        ),
    ]
    assert plan_text(steps).split("\n") == [
        '1. Read — files.read(path="a\\nb", n=1)',
        "2. files.list()",
        '3. Think hard — agent "x" (no tools; at most 10 turns)',
        '4. Do — agent "x" (files.read; at most 10 turns)',
    ]


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2))])
def test_times_are_utc_to_the_microsecond(zone: timezone) -> None:
    at = datetime(2026, 11, 21, 4, 5, 6, 7, tzinfo=UTC).astimezone(zone)
    assert time_of(at) == "2026-11-21T04:05:06.000007Z"


def test_a_line_is_cut_where_it_is_too_long() -> None:
    assert one_line("a" * 300) == "a" * 300
    assert one_line("a" * 301) == "a" * 299 + "…"
    assert one_line(" " * 5000 + "a").endswith("…")


def test_a_line_has_no_mark_that_reorders_or_hides() -> None:
    assert one_line("a\u202eb\u200bc\x1b[31md\x00\x85e\ufefff") == r"a\u202eb\u200bc\x1b[31md\x00\x85e\ufefff"
    assert one_line("a\ud800\u2028\u2029\U000e0041") == r"a\ud800\u2028\u2029\U000e0041"


def test_white_space_of_any_kind_is_one_space_in_a_line() -> None:
    assert one_line(" a \t\r\n b\u00a0\u3000c ") == "a b c"


def test_a_plan_line_marks_what_would_hide_or_reorder_in_a_file_name() -> None:
    arguments = {"path": "report\u202egpj.txt", "a\u200bb": "two  spaces\u2028\u00a0\ud800"}
    step = ToolStep(
        id="s1", kind="tool", title="Save \u202eit", server="files", tool="wri\u200bte", arguments=arguments
    )
    shown = r'path="report\u202egpj.txt", a\u200bb="two  spaces\u2028\xa0\ud800"'
    assert plan_text([step]) == rf"1. Save \u202eit — files.wri\u200bte({shown})"


def test_neither_a_name_nor_a_title_passes_for_a_call() -> None:
    steps: list[ToolStep | AgentStep] = [
        ToolStep(
            id="s1",
            kind="tool",
            title='Read — files.read(path="notes.txt")',
            server="files",
            tool="wipe",
            arguments={'path="a") — x': 1, "": 2},
        ),
        ToolStep(id="s2", kind="tool", title="Look", server="files", tool='read(path="a") — preapproved'),
        AgentStep(
            id="s3",
            kind="agent",
            title="Do",
            instruction="x",
            tools=(AllowedTool(server="files", tool="read, files.look"),),
        ),
    ]
    assert plan_text(steps).split("\n") == [
        r'1. "Read — files.read(path=\"notes.txt\")" — files.wipe("path=\"a\") — x"=1, ""=2)',
        r'2. Look — files."read(path=\"a\") — preapproved"()',
        '3. Do — agent "x" (files."read, files.look"; at most 10 turns)',
    ]


def test_the_whole_condition_of_a_step_is_shown() -> None:
    long = f"${{a.text}} == '{'x' * 300}' or ${{a.text}} !=  'y'"
    step = ToolStep(id="s1", kind="tool", title="Look", server="files", tool="look", when=long)
    assert plan_text([step]) == f"1. Look — files.look() — only when {long}"


def test_an_agent_step_shows_the_names_of_its_tools_visibly() -> None:
    tools = (AllowedTool(server="fi\u200bles", tool="re\u202ead"),)
    assert plan_text([AgentStep(id="s1", kind="agent", title="Do", instruction="x", tools=tools)]) == (
        r'1. Do — agent "x" (fi\u200bles.re\u202ead; at most 10 turns)'
    )


def test_a_question_names_the_unfinished_steps_that_a_skip_would_take_along() -> None:
    def step(name: str, text: str = "x", depends_on: tuple[str, ...] = ()) -> ToolStep:
        arguments = {"text": text}
        return ToolStep(id=name, kind="tool", server="text", tool="echo", arguments=arguments, depends_on=depends_on)

    # Out of order: the last step needs the first, and the step before it needs the last.
    steps = (step("s1"), step("s2", depends_on=("s4",)), step("s3"), step("s4", "${s1.text}"))
    contract = CONTRACT.model_copy(update={"steps": steps})
    task = Task("task_1")
    call = tool_called("s1")
    events: list[tuple[ev.Event, int | None]] = [
        (task_submitted(), None),
        (task_claimed(task), 1),
        (plan_proposed().model_copy(update={"contract": contract, "digest": contract.digest}), 1),
        (ev.PlanApproved(revision=1, digest=contract.digest, actor="ann"), None),
        (task_claimed(task).model_copy(update={"epoch": 2}), 2),
        (ev.StepStarted(step_id="s1", title="x"), 2),
        (call, 2),
        (ev.StepOutcomeUnknown(step_id="s1", call_id=call.call_id, reason="lost"), 2),
    ]
    for event, epoch in events:
        task = evolve(task, ev.make_record(task.task_id, task.version + 1, epoch, AT, event))
    (asked,) = task_view(task)["attention"]
    assert asked["kind"] == "outcome_unknown"
    assert asked["needed_by"] == ["s2", "s4"]
    assert asked["attempt"] == 1
    assert (asked["sent_at"] or "") <= (asked["asked_at"] or "")
    assert (asked["effect"], asked["idempotent"], asked["edited_by"]) == ("destructive", False, None)
