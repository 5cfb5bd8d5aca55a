"""The ExecutorAgent alone: how it records answers, and how it fences text that is data."""

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain import events as ev
from agent_runtime.domain.conversation import fence
from agent_runtime.domain.model_requests import ModelRequest
from agent_runtime.domain.plan import AgentStep
from agent_runtime.services.executor_agent import Answered, Question
from agent_runtime.services.ports import TaskStore
from agent_runtime.services.run import Run
from agent_steps import AGENT, LOOK, after, contract_of, make_task_after_look, model_answered, step_started

SERVERS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,63}", fullmatch=True)
DOING = after(make_task_after_look(contract_of(LOOK, AGENT)), step_started("do"))


def run_of(task: object) -> Run:
    return Run(cast("TaskStore", None), task, asyncio.Event(), asyncio.Event())  # type: ignore[arg-type]


def question() -> Question:
    return Question("do", 1, ModelRequest("", []), 1.0)


async def test_a_task_that_was_cancelled_meanwhile_takes_no_answer_any_more() -> None:
    run = run_of(after(DOING, ev.TaskCancelRequested(), ev.TaskCancelled()))
    version = run.task.version
    Answered(question(), answer=model_answered(1, ("f__read", {}))).stage(run)
    Answered(question(), failure=ev.StepFailed(step_id="do", code="c", message="m")).stage(run)
    assert run.task.version == version


async def test_an_answer_counts_while_a_task_is_being_cancelled_and_a_failure_does_not() -> None:
    contract = contract_of(LOOK, AGENT, {**AGENT, "id": "other"})
    both = after(
        make_task_after_look(contract),
        step_started("do"),
        step_started("other"),
        model_answered(1, ("f__read", {}), step_id="other"),
    )
    run = run_of(after(both, ev.TaskCancelRequested()))
    Answered(question(), failure=ev.StepFailed(step_id="do", code="c", message="m")).stage(run)
    Answered(question(), answer=model_answered(1, ("f__read", {}))).stage(run)
    assert len(run.task.steps["do"].turns) == 1


@given(st.text(), st.text())
def test_text_that_is_data_cannot_end_its_own_fence(text: str, source: str) -> None:
    opening, *inner, closing = fence(text, source, "task_1").split("\n")
    token = opening.split()[1]
    assert closing == f"</data {token}>"
    assert closing not in "\n".join(inner)


@given(st.lists(st.tuples(SERVERS, st.text(min_size=1)), max_size=8))
def test_every_tool_of_a_step_has_a_name_of_its_own_that_a_model_can_be_given(names: list[tuple[str, str]]) -> None:
    listed = [{"server": server, "tool": tool} for server, tool in dict.fromkeys(names)]
    step = AgentStep.model_validate({"id": "s", "kind": "agent", "instruction": "x", "tools": listed})
    assert len(step.functions) == len(listed)
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isascii() for name in step.functions)
    assert list(step.functions.values()) == list(step.tools)
