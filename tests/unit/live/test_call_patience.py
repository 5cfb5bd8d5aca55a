"""The time limit of a call that reports progress: its cap, and the seconds left in the budget."""

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.commands import CallTool, next_command
from agent_runtime.domain.contract import Budget
from agent_runtime.domain.elicitation import DECLINED, Question, Reply
from agent_runtime.domain.patience import Report
from agent_runtime.domain.task import Task
from agent_runtime.live.call_patience import CallPatience
from agent_runtime.live.progress import Progress, Reported
from agent_runtime.services.ports import TaskStore
from agent_runtime.services.run import Run
from agent_steps import LOOK, after, contract_of, make_executing_task, step_started, tool_called
from waiting import eventually

AT = datetime(2026, 11, 21, tzinfo=UTC)
FIRST, SECOND = ({**LOOK, "id": name} for name in ("first", "second"))


def call_of(step_id: str, timeout_s: float) -> ev.ToolCalled:
    return tool_called(step_id, "read", {"x": 1}).model_copy(update={"timeout_s": timeout_s, "call_id": step_id})


def run_with(*calls: ev.ToolCalled, seconds: float | None = None) -> Run:
    """Return a run in which these calls are open."""
    contract = contract_of(FIRST, SECOND, budget=Budget(seconds=seconds))
    task = after(make_executing_task(contract), *(event for one in calls for event in (step_started(one.step_id), one)))
    return Run(cast("TaskStore", None), task, asyncio.Event(), asyncio.Event())


def patience_of(run: Run, call: ev.ToolCalled, longest_s: float = 40, progress: Progress | None = None) -> CallPatience:
    return CallPatience(run, call, longest_s, {"first", "second"}, progress or Progress())


def test_a_call_may_take_what_it_asks_for_up_to_its_cap() -> None:
    first = call_of("first", 4)
    patience = patience_of(run_with(first), first)
    assert [patience.extend(seconds) for seconds in (6, 39, 41, 1000)] == [6, 39, 40, 40]


def test_a_call_gets_only_seconds_that_the_budget_has() -> None:
    first, second = call_of("first", 4), call_of("second", 3)
    run = run_with(first, second, seconds=10)
    assert patience_of(run, first).extend(20) == 7
    assert patience_of(run, second).extend(20) == 3, "the other call has got what was left"


@pytest.mark.parametrize(("extended_to_s", "left_s"), [(4, 6), (7, 3), (10, 0)])
def test_what_a_call_was_given_is_not_left_for_others(extended_to_s: float, left_s: float) -> None:
    first = call_of("first", 4)
    run = run_with(first, seconds=10)
    patience_of(run, first).extend(extended_to_s)
    assert seconds_left(run.charged_task, {"first"}) == left_s
    command = next_command(run.charged_task, {"first"})
    assert isinstance(command, CallTool) == (left_s > 0), "with nothing left it waits for the call"


async def test_a_report_is_shown_to_those_who_follow_the_task() -> None:
    first, progress = call_of("first", 4), Progress()
    run = run_with(first)
    with progress.listen(run.task.task_id) as listener:
        patience_of(run, first, progress=progress).tell(Report(1, 2, "half"))
        (said,) = await listener.take()
    assert said == Reported("first", "Step first reports progress: 1 of 2, half", Report(1, 2, "half"))


class Journal(Run):
    """A run whose journal says nothing of a question before it is withdrawn, and then this of how it ended."""

    def __init__(self, task: Task, end: type[ev.InputAnswered | ev.InputWithdrawn]) -> None:
        super().__init__(cast("TaskStore", None), task, asyncio.Event(), asyncio.Event())
        self.posted: list[ev.Event] = []
        self.withdrawn = asyncio.Event()
        self.end = end

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)
        if isinstance(event, ev.InputWithdrawn):
            self.withdrawn.set()

    async def read_on(self, after: int) -> list[ev.EventRecord]:
        await self.withdrawn.wait()
        _, event = self.posted
        assert isinstance(event, ev.InputWithdrawn)
        if self.end is ev.InputAnswered:
            event = ev.InputAnswered(
                step_id=event.step_id, question_id=event.question_id, action="accept", content={"n": 1}
            )
        return [ev.make_record("t", after + 1, None, AT, event)]


@pytest.mark.parametrize(
    ("end", "reply"), [(ev.InputAnswered, Reply("accept", {"n": 1})), (ev.InputWithdrawn, DECLINED)]
)
async def test_what_the_journal_says_of_the_end_of_a_question_is_what_the_server_gets(
    end: type[ev.InputAnswered | ev.InputWithdrawn], reply: Reply
) -> None:
    first = call_of("first", 4)
    run = Journal(run_with(first).task, end)
    async with asyncio.TaskGroup() as group:
        question = Question("Sure?", {"type": "object"})
        asked = group.create_task(patience_of(run, first).ask(question, asyncio.Event()))
        await eventually(lambda: run.posted)
        run.cancel.set()  # as the end of its patience does
    assert asked.result() == reply
    assert [type(event) for event in run.posted] == [ev.InputRequested, ev.InputWithdrawn]
    assert run.is_behind
