"""The waits of a task for an unavailable server or model, and when it gives up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    DefinitionChangedError,
    ModelError,
    PlanningError,
    ServerUnavailableError,
)
from agent_runtime.domain.outages import OutageLimits, compute_pause_s, describe_wait, explain_failure
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task, Waiting
from agent_runtime.domain.usage import Usage

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = OutageLimits(approved_s=3600, planning_s=60, pause=lambda attempt: 10.0 * attempt)
EXECUTING = Task("t", status=TaskStatus.EXECUTING)
DOWN = ServerUnavailableError("f", "it is down", may_pass=True)


def has_waited(attempt: int = 1, since: datetime = NOW, **more: Any) -> Task:
    waiting = Waiting("server", "f", "r", attempt, since, since, since + HOUR, **more)
    return Task("t", status=TaskStatus.EXECUTING, waiting=waiting)


def wait_for(task: Task, error: AgentRuntimeError = DOWN, now: datetime = NOW) -> ev.TaskWaiting | None:
    return LIMITS.wait_for(task, "server", "f", error, now)


def test_the_first_wait_begins_with_the_first_failure() -> None:
    assert wait_for(EXECUTING) == ev.TaskWaiting(
        kind="server",
        name="f",
        reason="MCP server 'f' is unavailable: it is down",
        attempt=1,
        next_try_at=NOW + timedelta(seconds=10),
        gives_up_at=NOW + HOUR,
    )


def test_a_task_that_is_planned_waits_less_long() -> None:
    waiting = wait_for(Task("t"))
    assert waiting is not None
    assert waiting.gives_up_at == NOW + timedelta(seconds=60)


def test_every_further_wait_is_longer_and_ends_no_later() -> None:
    waiting = wait_for(has_waited(4, NOW - timedelta(minutes=30)))
    assert waiting is not None
    assert (waiting.attempt, waiting.next_try_at) == (5, NOW + timedelta(seconds=50))
    assert waiting.gives_up_at == NOW + timedelta(minutes=30)


def test_the_last_try_is_made_when_the_time_is_over_and_its_failure_is_the_end() -> None:
    began = NOW - timedelta(seconds=3599)
    waiting = wait_for(has_waited(9, began))
    assert waiting is not None
    assert waiting.next_try_at == waiting.gives_up_at == began + HOUR
    assert wait_for(has_waited(10, began), now=began + HOUR) is None


@pytest.mark.parametrize(
    "error",
    [
        ServerUnavailableError("f", "its command was not found"),
        DefinitionChangedError("changed"),
        ModelError("no key", code="model_key_refused"),
        PlanningError("cannot do that"),
    ],
)
def test_what_does_not_pass_by_itself_is_not_waited_for(error: AgentRuntimeError) -> None:
    assert wait_for(EXECUTING, error) is None


@pytest.mark.parametrize(
    ("before", "same", "waits"), [("1: a", 1, True), ("1: a", 2, False), ("1: b", 2, True), (None, 0, True)]
)
def test_a_process_that_ends_alike_three_times_in_a_row_is_given_up(
    before: str | None, same: int, *, waits: bool
) -> None:
    task = has_waited(2, exit_mark=before, same_exits=same)
    error = ServerUnavailableError("f", "it exited", may_pass=True, exit_mark="1: a")
    assert (wait_for(task, error) is not None) is waits


def test_what_an_answer_took_before_it_broke_off_is_kept() -> None:
    broken = ModelError("it broke off", may_pass=True, usage=Usage(3, 2))
    waiting = wait_for(EXECUTING, broken)
    assert waiting is not None
    assert waiting.usage == Usage(3, 2)


def test_a_reason_is_not_endless() -> None:
    waiting = wait_for(EXECUTING, ServerUnavailableError("f", "x" * 100_000, may_pass=True))
    assert waiting is not None
    assert len(waiting.reason) == 2000


def test_nothing_is_done_for_a_task_that_waits_until_its_next_try() -> None:
    assert compute_pause_s(EXECUTING, NOW) == 0
    assert compute_pause_s(has_waited(since=NOW + timedelta(seconds=5)), NOW) == 5
    assert compute_pause_s(has_waited(since=NOW - timedelta(seconds=5)), NOW) == 0


def test_the_failure_after_a_wait_says_how_long_it_was() -> None:
    assert explain_failure(EXECUTING, DOWN, NOW) == str(DOWN)
    said = explain_failure(has_waited(2, NOW - HOUR), DOWN, NOW)
    assert said == f"{DOWN} It was tried 3 times in 3600 s."


def test_a_wait_in_words_names_what_is_needed_and_the_next_try() -> None:
    waiting = wait_for(EXECUTING)
    assert waiting is not None
    said = "MCP server f, next try at 2026-11-21 04:00:10 UTC (attempt 1 failed)"
    assert describe_wait(waiting) == f"Waiting for {said}: MCP server 'f' is unavailable: it is down"


def test_pauses_grow_from_a_second_to_five_minutes() -> None:
    pauses = [Pauses().in_outage(attempt) for attempt in range(1, 400)]
    assert 1 <= pauses[0] <= 1.5
    assert pauses[:8] == sorted(pauses[:8])
    assert pauses[-1] == 300
