"""The transition table, for every event in every status, and the other rules of the folds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.commands import CallTool, ProposePlan, WriteEvents, next_commands, result_of
from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedPolicy
from agent_runtime.domain.errors import IllegalTransitionError, StaleEpochError
from agent_runtime.domain.folds import FOLDS
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.status import TERMINAL, WAITING, TaskStatus
from agent_runtime.domain.task import (
    Approval,
    Call,
    EditedArguments,
    RevisionFailure,
    StepState,
    StepStatus,
    Task,
    TaskError,
    Waiting,
    may_repeat,
)
from agent_runtime.domain.tools import Effect, StoredResult, ToolDefinition
from agent_runtime.domain.transitions import evolve, is_late_evidence, replay
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import digest

S = TaskStatus
AT = datetime(2026, 11, 21, tzinfo=UTC)


def contract(budget: Budget | None = None) -> Contract:
    steps: list[ToolStep | AgentStep] = [
        ToolStep(id="s1", kind="tool", server="f", tool="read", retries=1),
        ToolStep(id="s2", kind="tool", server="f", tool="write", arguments={"x": "${s1.text}"}),
        ToolStep(id="s3", kind="tool", server="f", tool="write", depends_on=("s2",)),
        AgentStep(id="s4", kind="agent", instruction="x", depends_on=("s3",)),
    ]

    def policy(*, idempotent: bool) -> PinnedPolicy:
        return PinnedPolicy(effect=Effect.WRITE, idempotent=idempotent, approval="plan")

    return Contract(
        goal="g",
        steps=tuple(steps),
        limits=Limits(budget=budget or Budget()),
        policy={"f/read": policy(idempotent=True), "f/write": policy(idempotent=False)},
        pins={"f/read": "p", "f/write": "p"},
    )


PLAN = contract()
PROPOSED = ev.PlanProposed(revision=1, digest=PLAN.digest, contract=PLAN, definitions={}, planner="rules")
APPROVED = ev.PlanApproved(revision=1, digest=PLAN.digest)
REVISED = ev.PlanRevisionRequested(feedback="shorter", revision=1, digest=PLAN.digest, actor="ann")
OTHER_PLAN = PLAN.model_copy(update={"goal": "another"})
EDITED = ev.PlanEdited(revision=2, digest=OTHER_PLAN.digest, contract=OTHER_PLAN, definitions={}, actor="ann")
SAME_PLAN = Contract.model_validate(PLAN.model_dump() | {"servers": {"f": "sha256:another"}})
NOT_REVISED = ev.PlanRevisionFailed(revision=1, digest=PLAN.digest, code="planning_refused", message="m")
REPINNED = ev.PlanRepinned(revision=2, digest=SAME_PLAN.digest, contract=SAME_PLAN, definitions={})
EXPIRED = ev.TaskExpired(revision=1, digest=PLAN.digest)
GOOD = StoredResult(text="fine")
BAD = StoredResult(text="no", is_error=True)


def after(task: Task, *events: ev.Event, epoch: int | None = None) -> Task:
    """Return the task after these events; those of a run carry its epoch."""
    for event in events:
        of_a_run = event.epoch if isinstance(event, ev.TaskClaimed) else task.epoch if event.writer == "run" else None
        at = AT + timedelta(seconds=task.version)
        task = evolve(task, ev.make_record("t", task.version + 1, epoch if epoch is not None else of_a_run, at, event))
    return task


def task_claimed(epoch: int) -> ev.TaskClaimed:
    return ev.TaskClaimed(runner="r", epoch=epoch)


def task_waiting(attempt: int = 1, mark: str | None = None, usage: Usage = Usage()) -> ev.TaskWaiting:  # noqa: B008 - a frozen value
    return ev.TaskWaiting(
        kind="server",
        name="f",
        reason=f"r{attempt}",
        attempt=attempt,
        next_try_at=AT + timedelta(minutes=attempt),
        gives_up_at=AT + timedelta(days=1),
        exit_mark=mark,
        usage=usage,
    )


def step_started(step: str) -> ev.StepStarted:
    return ev.StepStarted(step_id=step, title="t")


def tool_called(step: str, call: str = "c1", attempt: int = 1, tool: str | None = None) -> ev.ToolCalled:
    name = tool or ("read" if step == "s1" else "write")
    return ev.ToolCalled(
        step_id=step, call_id=call, server="f", tool=name, arguments={}, arguments_digest="d", attempt=attempt
    )


def tool_returned(step: str, call: str = "c1", result: StoredResult = GOOD) -> ev.ToolReturned:
    return ev.ToolReturned(step_id=step, call_id=call, result=result, duration_ms=500)


def unknown(step: str, call: str = "c1") -> ev.StepOutcomeUnknown:
    return ev.StepOutcomeUnknown(step_id=step, call_id=call, reason="lost")


def step_resolved(step: str, resolution: ev.Resolution, call: str = "c1", output: object = None) -> ev.StepResolved:
    return ev.StepResolved(step_id=step, call_id=call, resolution=resolution, output=output)


def run_step(step: str) -> tuple[ev.Event, ...]:
    return step_started(step), tool_called(step), tool_returned(step), ev.StepCompleted(step_id=step)


PENDING = after(Task("t"), ev.TaskSubmitted(prompt="p"))
AWAITING = after(PENDING, task_claimed(1), PROPOSED)
READY = after(AWAITING, APPROVED)
EXECUTING = after(READY, task_claimed(2))
CALLING = after(EXECUTING, step_started("s1"), tool_called("s1"))
WRITING = after(EXECUTING, *run_step("s1"), step_started("s2"), tool_called("s2"))
ASKING = after(WRITING, unknown("s2"))
CANCELLING = after(WRITING, ev.TaskCancelRequested())

ASKED = ev.CallApprovalRequested(
    step_id="s2", call_id="c9", server="f", tool="write", arguments={}, arguments_digest="d", reason="r"
)

EDITED_CALL = ev.CallApproved(
    step_id="s2",
    call_id="c9",
    arguments_digest="d",
    edited_arguments={"a": 1},
    edited_digest=digest({"a": 1}),
    actor="ann",
    scopes=("approve", "submit"),
)

EVENTS: list[ev.Event] = [
    ev.TaskSubmitted(prompt="p"),
    task_claimed(1),
    PROPOSED,
    APPROVED,
    ev.PlanRejected(revision=1, digest=PLAN.digest),
    REVISED,
    NOT_REVISED,
    EDITED,
    REPINNED,
    task_waiting(),
    step_started("s1"),
    ev.ModelAnswered(step_id="s1", turn=1, items=()),
    tool_called("s1"),
    tool_returned("s1"),
    ev.ToolDenied(step_id="s1", server="f", tool="rm", rule="r", message="m"),
    ev.StepCompleted(step_id="s1"),
    ev.StepFailed(step_id="s1", code="c", message="m"),
    ev.StepSkipped(step_id="s1", reason="r"),
    unknown("s1"),
    step_resolved("s1", "done"),
    ev.BudgetExceeded(budget="tool_calls", limit=1, used=1),
    ev.TaskCancelRequested(),
    ev.TaskCompleted(result="r"),
    ev.TaskFailed(code="c", message="m"),
    ev.TaskCancelled(),
    ASKED,
    ev.CallApproved(step_id="s2", call_id="c9", arguments_digest="d"),
    ev.CallDenied(step_id="s2", call_id="c9", arguments_digest="d"),
    EXPIRED,
    ev.InputRequested(
        step_id="s1", call_id="c1", question_id="q1", server="f", tool="read", message="m", requested_schema={}
    ),
    ev.InputAnswered(step_id="s1", question_id="q1", action="decline"),
    ev.InputWithdrawn(step_id="s1", question_id="q1", reason="r"),
]


def test_the_table_knows_every_event_and_lets_nothing_follow_the_end() -> None:
    assert set(ev.EVENTS.values()) == {type(event) for event in EVENTS} == set(FOLDS)
    assert not any(kind.follows & TERMINAL for kind in ev.EVENTS.values())


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_what_the_table_does_not_allow_is_refused(status: TaskStatus, event: ev.Event) -> None:
    task = replace(EXECUTING, status=status)
    if status in event.follows:
        return
    why = "begins with" if isinstance(event, ev.TaskSubmitted) else f"the task is {status}"
    for epoch in (None, 1, 2, 3):
        with pytest.raises(IllegalTransitionError, match=why):
            evolve(task, ev.make_record("t", task.version + 1, epoch, AT, event))


@pytest.mark.parametrize("event", EVENTS[1:], ids=lambda event: event.type)
def test_a_journal_begins_with_the_submission(event: ev.Event) -> None:
    with pytest.raises(IllegalTransitionError, match="begins with"):
        evolve(Task("t"), ev.make_record("t", 1, 1, AT, event))


def _plan_of(edited: ev.PlanEdited) -> dict[str, object]:
    return {"contract": edited.contract, "digest": edited.digest}


REFUSED: list[tuple[str, Task, ev.Event, str]] = [
    ("a claim of a waiting plan", AWAITING, task_claimed(2), "waits for a person"),
    ("a claim while a person is asked", ASKING, task_claimed(3), "waits for a person"),
    ("another revision", after(PENDING, task_claimed(1)), PROPOSED.model_copy(update={"revision": 2}), "revision"),
    ("another digest", after(PENDING, task_claimed(1)), PROPOSED.model_copy(update={"digest": "sha256:x"}), "digest"),
    ("a plan during a cancel", after(PENDING, ev.TaskCancelRequested()), PROPOSED, "being cancelled"),
    ("approval of another plan", AWAITING, APPROVED.model_copy(update={"digest": "d"}), "another plan"),
    ("approval of another revision", AWAITING, APPROVED.model_copy(update={"revision": 2}), "another plan"),
    ("rejection of another plan", AWAITING, ev.PlanRejected(revision=1, digest="d"), "another plan"),
    ("a revision of another plan", AWAITING, REVISED.model_copy(update={"digest": "d"}), "another plan"),
    ("a revision during a cancel", after(AWAITING, ev.TaskCancelRequested()), REVISED, "being cancelled"),
    ("a failure to plan before there is a plan", after(PENDING, task_claimed(1)), NOT_REVISED, "another plan"),
    (
        "a failure to revise another plan",
        after(AWAITING, REVISED, task_claimed(2)),
        NOT_REVISED.model_copy(update={"digest": "d"}),
        "another plan",
    ),
    (
        "a failure to revise during a cancel",
        after(AWAITING, REVISED, task_claimed(2), ev.TaskCancelRequested()),
        NOT_REVISED,
        "being cancelled",
    ),
    (
        "an edited call under the digest of other arguments",
        after(EXECUTING, *run_step("s1"), ASKED),
        EDITED_CALL.model_copy(update={"edited_arguments": {"a": 2}}),
        "not that of the edited arguments",
    ),
    (
        "a digest without edited arguments",
        after(EXECUTING, *run_step("s1"), ASKED),
        EDITED_CALL.model_copy(update={"edited_arguments": None}),
        "not that of the edited arguments",
    ),
    (
        "an edited call by who may not submit",
        after(EXECUTING, *run_step("s1"), ASKED),
        EDITED_CALL.model_copy(update={"scopes": ("approve", "read")}),
        "only with the scopes submit and approve",
    ),
    (
        "an edited call by who may not approve",
        after(EXECUTING, *run_step("s1"), ASKED),
        EDITED_CALL.model_copy(update={"scopes": ("submit",)}),
        "only with the scopes submit and approve",
    ),
    (
        "an edited call without scopes",
        after(EXECUTING, *run_step("s1"), ASKED),
        EDITED_CALL.model_copy(update={"scopes": ()}),
        "only with the scopes submit and approve",
    ),
    (
        "a call with the arguments that were shown though others were approved",
        after(EXECUTING, *run_step("s1"), ASKED, EDITED_CALL, task_claimed(3), step_started("s2")),
        tool_called("s2", "c9"),
        "nobody has approved this concrete call",
    ),
    (
        "a question about other arguments than were sent before",
        after(
            EXECUTING,
            *run_step("s1"),
            ASKED,
            EDITED_CALL,
            task_claimed(3),
            step_started("s2"),
            tool_called("s2", "c9").model_copy(update={"arguments": {"a": 1}, "arguments_digest": digest({"a": 1})}),
            unknown("s2", "c9"),
            step_resolved("s2", "retry", "c9"),
            task_claimed(4),
        ),
        ASKED.model_copy(update={"call_id": "c10"}),
        "not those that a person put in the place",
    ),
    ("an edit as a later revision", AWAITING, EDITED.model_copy(update={"revision": 3}), "revision"),
    ("an edit as the same revision", AWAITING, EDITED.model_copy(update={"revision": 1}), "revision"),
    ("an edit under a wrong digest", AWAITING, EDITED.model_copy(update={"digest": "sha256:x"}), "digest"),
    ("an edit during a cancel", after(AWAITING, ev.TaskCancelRequested()), EDITED, "being cancelled"),
    (
        "another plan as the same one",
        AWAITING,
        REPINNED.model_copy(update=_plan_of(EDITED)),
        "the plan that it replaces",
    ),
    ("a plan made anew as the same revision", AWAITING, REPINNED.model_copy(update={"revision": 1}), "revision"),
    ("a plan made anew during a cancel", after(AWAITING, ev.TaskCancelRequested()), REPINNED, "being cancelled"),
    ("a plan made anew by nobody's run", EXECUTING, REPINNED, "only the run after one"),
    ("approval of what was made anew", after(AWAITING, REPINNED), APPROVED, "another plan"),
    ("an end of what awaits approval", AWAITING, ev.TaskFailed(code="c", message="m"), "may fail only if"),
    ("approval of what was edited", after(AWAITING, EDITED), APPROVED, "another plan"),
    ("expiry of another plan", after(AWAITING, EDITED), EXPIRED, "another plan"),
    ("expiry during a cancel", after(AWAITING, ev.TaskCancelRequested()), EXPIRED, "being cancelled"),
    ("approval during a cancel", after(AWAITING, ev.TaskCancelRequested()), APPROVED, "being cancelled"),
    ("a wait that is not the next", EXECUTING, task_waiting(2), "not the next one"),
    ("the same wait twice", after(EXECUTING, task_waiting()), task_waiting(), "not the next one"),
    ("a wait during a cancel", after(EXECUTING, ev.TaskCancelRequested()), task_waiting(), "being cancelled"),
    ("a wait beside a call that may not be sent again", WRITING, task_waiting(), "may not be sent again"),
    ("a step not in the plan", EXECUTING, step_started("s9"), "no step 's9'"),
    ("a step twice", CALLING, step_started("s1"), "is running"),
    ("a step before its time", EXECUTING, step_started("s2"), "needs s1"),
    ("a step during a cancel", after(EXECUTING, ev.TaskCancelRequested()), step_started("s1"), "being cancelled"),
    ("a call before its step", EXECUTING, tool_called("s1"), "is pending"),
    (
        "a call of another tool",
        after(EXECUTING, step_started("s1")),
        tool_called("s1", tool="rm"),
        "not what the step may call",
    ),
    (
        "a call during a cancel",
        after(EXECUTING, step_started("s1"), ev.TaskCancelRequested()),
        tool_called("s1"),
        "cancelled",
    ),
    ("a wrong attempt", after(EXECUTING, step_started("s1")), tool_called("s1", attempt=2), "may not be called again"),
    ("a second call of what may not repeat", WRITING, tool_called("s2", "c2", 2), "may not be called again"),
    (
        "a repetition after success",
        after(CALLING, tool_returned("s1")),
        tool_called("s1", "c2", 2),
        "may not be called again",
    ),
    ("the answer to another call", CALLING, tool_returned("s1", "c9"), "'c9' is not open"),
    ("a second answer", after(CALLING, tool_returned("s1")), tool_returned("s1"), "'c1' is not open"),
    ("the answer to an older run's call", after(CALLING, task_claimed(3)), tool_returned("s1"), "'c1' is not open"),
    ("completion without an answer", CALLING, ev.StepCompleted(step_id="s1"), "no successful result"),
    (
        "completion without a call",
        after(EXECUTING, step_started("s1")),
        ev.StepCompleted(step_id="s1"),
        "no successful result",
    ),
    (
        "completion on an error",
        after(CALLING, tool_returned("s1", result=BAD)),
        ev.StepCompleted(step_id="s1"),
        "no successful",
    ),
    ("failure of an open call", CALLING, ev.StepFailed(step_id="s1", code="c", message="m"), "'c1' is open"),
    ("skipping what runs", CALLING, ev.StepSkipped(step_id="s1", reason="r"), "is running"),
    ("doubt about another call", CALLING, unknown("s1", "c9"), "'c9' is not open"),
    ("doubt about an answered call", after(CALLING, tool_returned("s1")), unknown("s1"), "'c1' is not open"),
    ("resolving another call", ASKING, step_resolved("s2", "done", "c9"), "not the one in question"),
    ("resolving another step", ASKING, step_resolved("s1", "done"), "is completed"),
    (
        "resolving during a cancel",
        after(ASKING, ev.TaskCancelRequested()),
        step_resolved("s2", "done"),
        "being cancelled",
    ),
    ("a second cancel", CANCELLING, ev.TaskCancelRequested(), "being cancelled"),
    ("an early end", CALLING, ev.TaskCompleted(result="r"), "neither completed nor been skipped"),
    ("failure with an open call", CALLING, ev.TaskFailed(code="c", message="m"), "call of s1 is open"),
    ("a cancel with an open call", CANCELLING, ev.TaskCancelled(), "call of s2 is open"),
    ("a cancel that nobody asked for", EXECUTING, ev.TaskCancelled(), "no cancellation was requested"),
    ("a cancel that hides a doubt", after(CANCELLING, unknown("s2")), ev.TaskCancelled(), "unknown outcome"),
]


@pytest.mark.parametrize(("task", "epoch"), [(AWAITING, None), (EXECUTING, 2)])
def test_a_plan_that_is_made_anew_awaits_approval_whatever_was_approved(task: Task, epoch: int | None) -> None:
    renewed = after(task, REPINNED, epoch=epoch)
    assert (renewed.status, renewed.plan_revision, renewed.contract) == (S.AWAITING_APPROVAL, 2, SAME_PLAN)
    assert renewed.approved_by is None
    assert renewed.planned_at == renewed.updated_at
    assert next_commands(renewed) == ()
    with pytest.raises(IllegalTransitionError, match="a step has started"):
        after(after(EXECUTING, step_started("s1")), REPINNED, epoch=2)


def test_what_awaits_approval_ends_where_what_it_was_made_for_has_changed() -> None:
    event = ev.TaskFailed(code="definition_changed", message="m")
    assert evolve(AWAITING, ev.make_record("t", AWAITING.version + 1, None, AT, event)).status is S.FAILED


def test_a_task_waits_from_its_first_failure_until_something_else_happens_than_the_next_claim() -> None:
    once = after(EXECUTING, task_waiting(1, "1: a"))
    assert once.waiting == Waiting(
        "server", "f", "r1", 1, once.updated_at or AT, AT + timedelta(minutes=1), AT + timedelta(days=1), "1: a", 1
    )
    twice = after(once, task_claimed(3), task_waiting(2, "1: a"))
    assert twice.waiting is not None
    assert (twice.waiting.since, twice.waiting.reason, twice.waiting.same_exits) == (once.waiting.since, "r2", 2)
    assert next_commands(twice) == next_commands(EXECUTING)
    for mark in ("1: b", None):
        other = after(twice, task_claimed(4), task_waiting(3, mark)).waiting
        assert other is not None
        assert other.same_exits == (mark is not None)
    assert after(twice, task_claimed(4), step_started("s1")).waiting is None
    assert after(twice, ev.TaskCancelRequested()).waiting is None
    assert after(PENDING, task_claimed(1), task_waiting(), task_claimed(2), PROPOSED).waiting is None


def test_what_a_model_took_before_the_wait_counts() -> None:
    assert after(PENDING, task_claimed(1), task_waiting(usage=Usage(3, 2))).usage == Usage(3, 2)


def test_a_call_that_never_left_may_be_made_again_three_times_in_all_and_does_not_count() -> None:
    unsent = StoredResult(text="refused", is_error=True, unsent=True)
    task = after(EXECUTING, *run_step("s1"), step_started("s2"))
    for attempt in (1, 2, 3):
        assert task.tool_calls == 1
        task = after(task, tool_called("s2", f"c{attempt}", attempt), tool_returned("s2", f"c{attempt}", unsent))
        assert may_repeat(task, "s2") is (attempt < 3)
    assert task.tool_calls == 1


def test_a_task_whose_open_calls_may_all_be_sent_again_can_wait() -> None:
    assert after(CALLING, task_waiting()).open_calls.keys() == {"s1"}


def test_a_revision_is_planned_again_from_the_plan_and_all_that_was_said() -> None:
    task = after(AWAITING, REVISED)
    assert (task.status, task.feedback, task.contract) == (S.PENDING, ("shorter",), PLAN)
    assert next_commands(task) == (ProposePlan(),)
    assert task.approvals == (Approval("ann", task.updated_at or AT, "revise", digest=PLAN.digest, comment="shorter"),)
    second = ev.PlanProposed(revision=2, digest=OTHER_PLAN.digest, contract=OTHER_PLAN, definitions={}, planner="rules")
    task = after(task, task_claimed(2), second)
    assert (task.status, task.plan_revision, task.contract) == (S.AWAITING_APPROVAL, 2, OTHER_PLAN)
    assert task.planned_at == task.updated_at
    again = REVISED.model_copy(update={"revision": 2, "digest": OTHER_PLAN.digest, "feedback": "longer"})
    assert after(task, again).feedback == ("shorter", "longer")


def test_a_revision_that_fails_leaves_the_plan_as_it_was_and_says_why_until_another_is_asked_for() -> None:
    spent = NOT_REVISED.model_copy(update={"usage": Usage(3, 2)})
    task = after(AWAITING, REVISED, task_claimed(2), spent)
    assert (task.status, task.plan_revision, task.plan_digest) == (S.AWAITING_APPROVAL, 1, PLAN.digest)
    assert task.revision_failure == RevisionFailure("shorter", "planning_refused", "m")
    assert (task.feedback, task.usage, task.times_sent_back) == ((), Usage(3, 2), 1)
    assert task.planned_at == task.updated_at != AWAITING.planned_at
    assert next_commands(task) == ()
    assert after(task, APPROVED).status is S.APPROVED
    assert after(task, EDITED).revision_failure is None
    again = after(task, REVISED.model_copy(update={"feedback": "longer"}))
    assert (again.feedback, again.revision_failure) == (("longer",), None)
    failed = after(again, task_claimed(3), NOT_REVISED)
    assert failed.revision_failure == RevisionFailure("longer", "planning_refused", "m")


def test_feedback_makes_an_author_of_its_writer_only_if_a_plan_was_made_from_it() -> None:
    asked = after(AWAITING, REVISED, task_claimed(2))
    second = ev.PlanProposed(revision=2, digest=OTHER_PLAN.digest, contract=OTHER_PLAN, definitions={}, planner="rules")
    assert asked.authors == after(asked, NOT_REVISED).authors == AWAITING.authors
    assert after(asked, second).authors == (*AWAITING.authors, "ann")


def test_an_edit_is_the_next_revision_and_awaits_approval_of_its_own() -> None:
    definition = ToolDefinition(name="read")
    task = after(AWAITING, EDITED.model_copy(update={"definitions": {"f/read": definition}}))
    assert (task.status, task.plan_revision, task.plan_digest) == (S.AWAITING_APPROVAL, 2, OTHER_PLAN.digest)
    assert (task.contract, task.definitions) == (OTHER_PLAN, {"f/read": definition})
    assert task.planned_at == task.updated_at != AWAITING.planned_at
    assert task.approvals == (Approval("ann", task.updated_at or AT, "edit", digest=OTHER_PLAN.digest),)
    approved = ev.PlanApproved(revision=2, digest=OTHER_PLAN.digest)
    assert after(task, approved).status is S.APPROVED


def test_a_plan_that_nobody_approved_in_time_is_the_end() -> None:
    task = after(AWAITING, EXPIRED)
    assert (task.status, task.terminal, next_commands(task)) == (S.EXPIRED, True, ())


@pytest.mark.parametrize(("task", "event", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_an_event_that_breaks_a_rule_is_refused(task: Task, event: ev.Event, why: str) -> None:
    with pytest.raises(IllegalTransitionError, match=why):
        after(task, event)


def test_completion_during_a_cancel_is_refused() -> None:
    ended = replace(EXECUTING, steps={}, cancel_requested=True)
    with pytest.raises(IllegalTransitionError, match="being cancelled"):
        after(ended, ev.TaskCompleted(result=""))


@pytest.mark.parametrize("seq", [0, EXECUTING.version, EXECUTING.version + 2])
def test_numbers_have_no_gap_and_no_repetition(seq: int) -> None:
    with pytest.raises(IllegalTransitionError, match=f"it has number {seq}, after {EXECUTING.version}"):
        evolve(EXECUTING, ev.make_record("t", seq, 2, AT, step_started("s1")))


@pytest.mark.parametrize(("epoch", "carried"), [(2, 2), (4, 4), (3, 2), (3, None)])
def test_a_claim_counts_on_by_one(epoch: int, carried: int | None) -> None:
    with pytest.raises(StaleEpochError, match=f"Epoch {epoch} cannot follow epoch 2"):
        evolve(EXECUTING, ev.make_record("t", EXECUTING.version + 1, carried, AT, task_claimed(epoch)))


@pytest.mark.parametrize("event", [event for event in EVENTS if event.writer == "run"], ids=lambda event: event.type)
def test_only_the_run_with_the_newest_claim_writes(event: ev.Event) -> None:
    status = S.EXECUTING if S.EXECUTING in event.follows else min(event.follows)
    task = replace(EXECUTING, status=status)
    with pytest.raises(IllegalTransitionError, match="only a run that holds the claim"):
        evolve(task, ev.make_record("t", task.version + 1, None, AT, event))
    for epoch in (1, 3):
        if not (epoch == 1 and isinstance(event, ev.ToolReturned)):
            with pytest.raises(StaleEpochError, match=f"Epoch {epoch} of task t was superseded by epoch 2"):
                evolve(task, ev.make_record("t", task.version + 1, epoch, AT, event))


def test_before_the_first_claim_nobody_is_a_run() -> None:
    with pytest.raises(IllegalTransitionError, match="only a run that holds the claim"):
        after(PENDING, ev.TaskFailed(code="c", message="m"), epoch=0)


def test_a_late_answer_is_kept_and_changes_nothing() -> None:
    task = after(CALLING, task_claimed(3))
    late = ev.make_record("t", task.version + 1, 2, AT, tool_returned("s1"))
    assert is_late_evidence(task.epoch, late)
    assert evolve(task, late) == replace(
        task, version=task.version + 1, updated_at=AT, journal_bytes=task.journal_bytes + len(late.data)
    )
    assert not is_late_evidence(CALLING.epoch, late)
    with pytest.raises(IllegalTransitionError, match="the task is"):
        evolve(replace(task, status=S.FAILED), late)


def test_a_note_of_a_denied_call_or_of_a_budget_changes_nothing_else() -> None:
    for event in EVENTS:
        if isinstance(event, ev.ToolDenied | ev.BudgetExceeded):
            task = after(EXECUTING, event)
            same: dict[str, Any] = {"version": 0, "updated_at": None, "journal_bytes": 0}
            assert replace(task, **same) == replace(EXECUTING, **same)


def test_a_task_that_goes_well() -> None:
    short = contract().model_copy(update={"steps": PLAN.steps[:2]})
    proposed = PROPOSED.model_copy(update={"contract": short, "digest": short.digest})
    approved = APPROVED.model_copy(update={"digest": short.digest, "actor": "ann", "comment": "go"})
    task = after(PENDING, task_claimed(1), proposed, approved, task_claimed(2), *run_step("s1"), *run_step("s2"))
    assert next_commands(task) == (WriteEvents((ev.TaskCompleted(result="fine"),)),)
    task = after(task, ev.TaskCompleted(result="fine"))
    assert (task.status, task.result, task.tool_calls, task.call_seconds) == (S.COMPLETED, "fine", 2, 1.0)
    assert [(a.actor, a.decision, a.digest, a.comment) for a in task.approvals] == [
        ("ann", "approve", short.digest, "go")
    ]
    assert (task.created_at, task.terminal, next_commands(task)) == (AT, True, ())
    assert task.updated_at == AT + timedelta(seconds=task.version - 1)


def test_the_submission_is_in_the_state_word_for_word() -> None:
    limits = Limits(max_steps=3)
    event = ev.TaskSubmitted(
        prompt="p",
        approval="auto",
        tools=("f",),
        limits=limits,
        metadata={"a": "b"},
        request_key="k",
        request_digest="d",
        thread="c",
    )
    assert after(Task("t"), event) == Task(
        "t",
        version=1,
        prompt="p",
        authors=("anonymous",),
        approval="auto",
        tools=("f",),
        limits=limits,
        metadata={"a": "b"},
        request_key="k",
        request_digest="d",
        thread="c",
        created_at=AT,
        updated_at=AT,
        journal_bytes=len(event.model_dump_json()),
    )


def test_a_claim_and_a_plan_are_in_the_state() -> None:
    definitions = {"f/read": ToolDefinition(name="read")}
    events = (task_claimed(1), PROPOSED.model_copy(update={"definitions": definitions}))
    task = after(PENDING, *events)
    assert task == replace(
        PENDING,
        journal_bytes=PENDING.journal_bytes + sum(len(event.model_dump_json()) for event in events),
        version=3,
        epoch=1,
        runner="r",
        status=S.AWAITING_APPROVAL,
        contract=PLAN,
        definitions=definitions,
        plan_revision=1,
        plan_digest=PLAN.digest,
        planned_at=AT + timedelta(seconds=2),
        steps={name: StepState() for name in ("s1", "s2", "s3", "s4")},
        updated_at=AT + timedelta(seconds=2),
    )


def test_every_moment_of_a_step_is_in_its_state() -> None:
    def at(task: Task) -> datetime:
        return AT + timedelta(seconds=task.version)

    begun = after(EXECUTING, step_started("s1"))
    assert begun.steps["s1"] == StepState(StepStatus.RUNNING, started_at=at(EXECUTING))
    event = ev.ToolCalled(
        step_id="s1", call_id="c1", server="f", tool="read", arguments={"a": 1}, arguments_digest="d", attempt=1
    )
    call = Call("c1", 2, "f", "read", {"a": 1}, "d", 1, sent_at=at(begun))
    sent = after(begun, event)
    assert sent.steps["s1"] == replace(begun.steps["s1"], call=call)
    assert (sent.tool_calls, sent.steps["s2"]) == (1, StepState())
    answered = after(sent, tool_returned("s1"))
    assert answered.steps["s1"] == replace(begun.steps["s1"], call=replace(call, result=GOOD))
    assert answered.call_seconds == 0.5
    completed = after(answered, ev.StepCompleted(step_id="s1"))
    assert completed.steps["s1"] == replace(
        answered.steps["s1"], status=StepStatus.COMPLETED, result=GOOD, ended_at=at(answered)
    )


def test_a_step_that_did_not_go_well_says_why_and_since_when() -> None:
    end = AT + timedelta(seconds=EXECUTING.version)
    failed = after(EXECUTING, ev.StepFailed(step_id="s1", code="c", message="m"))
    assert failed.steps["s1"] == StepState(StepStatus.FAILED, code="c", message="m", ended_at=end)
    assert after(EXECUTING, ev.StepSkipped(step_id="s1", reason="r")).steps["s1"] == StepState(
        StepStatus.SKIPPED, message="r", ended_at=end
    )
    asked_at = AT + timedelta(seconds=WRITING.version)
    unknown = replace(WRITING.steps["s2"], status=StepStatus.UNKNOWN, message="lost", asked_at=asked_at)
    assert ASKING.steps["s2"] == unknown
    end_of_task = after(failed, ev.TaskFailed(code="c", message="m", step_id="s1"))
    assert end_of_task.error == TaskError("c", "m", "s1")


@pytest.mark.parametrize(
    ("resolution", "changed"),
    [
        (
            "done",
            {"status": StepStatus.COMPLETED, "result": StoredResult(text="é", output="é", size=2), "message": None},
        ),
        ("skip", {"status": StepStatus.SKIPPED, "message": "skipped by a person"}),
        ("fail", {"status": StepStatus.FAILED, "code": "outcome_unknown"}),
    ],
)
def test_a_resolution_ends_the_step_and_is_kept_beside_the_approvals(
    resolution: ev.Resolution, changed: dict[str, Any]
) -> None:
    now = AT + timedelta(seconds=ASKING.version)
    event = ev.StepResolved(
        step_id="s2", call_id="c1", resolution=resolution, output="é", actor="ann", comment="I looked."
    )
    task = after(ASKING, event)
    assert task.steps["s2"] == replace(ASKING.steps["s2"], ended_at=now, **changed)
    assert task.approvals == (
        *ASKING.approvals,
        Approval("ann", now, resolution, step_id="s2", comment="I looked."),
    )


def test_a_step_that_is_to_be_tried_again_is_new_but_for_its_beginning() -> None:
    again = after(ASKING, step_resolved("s2", "retry"))
    assert again.steps["s2"] == StepState(started_at=WRITING.steps["s2"].started_at)
    begun = after(again, task_claimed(3), step_started("s2"))
    assert begun.steps["s2"] == replace(again.steps["s2"], status=StepStatus.RUNNING)
    sent_at = AT + timedelta(seconds=begun.version)
    sent = Call("c2", 3, "f", "write", {}, "d", 1, sent_at=sent_at)
    assert after(begun, tool_called("s2", "c2")).steps["s2"].call == sent


def test_a_call_that_is_to_be_tried_again_keeps_the_arguments_that_a_person_wrote() -> None:
    edited = {"arguments": {"a": 1}, "arguments_digest": digest({"a": 1})}
    asked = after(EXECUTING, *run_step("s1"), ASKED, EDITED_CALL, task_claimed(3), step_started("s2"))
    lost = after(asked, tool_called("s2", "c9").model_copy(update=edited), unknown("s2", "c9"))
    again = after(lost, step_resolved("s2", "retry", "c9"), task_claimed(4))
    assert again.steps["s2"].edited == EditedArguments({"a": 1}, digest({"a": 1}), "ann")
    renewed = after(again, ASKED.model_copy(update={"call_id": "c10", **edited}))
    assert renewed.status is S.NEEDS_ATTENTION


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (step_started("s9"), "step.started may not follow event 5 of task t: the plan has no step 's9'."),
        (step_started("s4"), "step.started may not follow event 5 of task t: it needs s3."),
    ],
)
def test_a_refusal_names_the_event_the_task_and_the_reason(event: ev.Event, why: str) -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        after(EXECUTING, event)
    assert str(caught.value) == why


def test_a_rejection_is_the_end() -> None:
    task = after(AWAITING, ev.PlanRejected(revision=1, digest=PLAN.digest, reason="no"))
    assert (task.status, task.approvals[0].decision, task.approvals[0].comment) == (S.REJECTED, "reject", "no")


def test_what_a_person_says_of_an_unknown_outcome_holds() -> None:
    said = after(ASKING, step_resolved("s2", "done", output={"a": 1}))
    assert (said.status, said.steps["s2"].status) == (S.APPROVED, StepStatus.COMPLETED)
    assert said.steps["s2"].result == StoredResult(text='{"a":1}', output={"a": 1}, size=7)
    assert after(ASKING, step_resolved("s2", "done")).steps["s2"].result == StoredResult()
    assert after(ASKING, step_resolved("s2", "retry")).steps["s2"].status is StepStatus.PENDING
    skipped = after(ASKING, step_resolved("s2", "skip"), task_claimed(3))
    (skip,) = next_commands(skipped)
    assert skip == WriteEvents((ev.StepSkipped(step_id="s3", reason="it needs s2, which was skipped"),))
    assert isinstance(skip, WriteEvents)
    (gone,) = next_commands(after(skipped, *skip.events))
    assert gone == WriteEvents((ev.StepSkipped(step_id="s4", reason="it needs s3, which was skipped"),))
    failed = after(ASKING, step_resolved("s2", "fail"), task_claimed(3))
    (skip,) = next_commands(failed)
    assert skip == WriteEvents((ev.StepSkipped(step_id="s3", reason="it needs s2, which failed"),))
    ended = after(failed, ev.StepSkipped(step_id="s3", reason="r"), ev.StepSkipped(step_id="s4", reason="r"))
    assert next_commands(ended) == (
        WriteEvents((ev.TaskFailed(code="outcome_unknown", message="lost", step_id="s2"),)),
    )


def test_a_task_asks_as_long_as_one_outcome_is_unknown() -> None:
    two = replace(ASKING, steps={**ASKING.steps, "s3": ASKING.steps["s2"]})
    assert after(two, step_resolved("s2", "done")).status is S.NEEDS_ATTENTION


def test_a_cancel_says_at_once_what_is_not_known() -> None:
    (command,) = next_commands(CANCELLING)
    assert isinstance(command, WriteEvents)
    assert [event.type for event in command.events] == ["step.outcome_unknown", "task.cancelled"]
    task = after(CANCELLING, *command.events)
    assert (task.status, task.unknown_steps) == (S.CANCELLED, ("s2",))


@pytest.mark.parametrize("task", [PENDING, AWAITING, READY, EXECUTING, CALLING, WRITING, ASKING])
def test_a_cancel_can_always_be_carried_out_even_by_the_next_run(task: Task) -> None:
    task = after(task, ev.TaskCancelRequested())
    task = after(task, task_claimed(task.epoch + 1))
    (command,) = next_commands(task)
    assert isinstance(command, WriteEvents)
    assert after(task, *command.events).status is S.CANCELLED


def test_what_is_asked_for_next() -> None:
    assert next_commands(PENDING) == (ProposePlan(),)
    assert next_commands(AWAITING) == next_commands(ASKING) == ()
    assert {AWAITING.status, ASKING.status} == WAITING
    assert next_commands(EXECUTING) == (CallTool(PLAN.steps[0]),)
    assert next_commands(after(EXECUTING, step_started("s1"))) == (CallTool(PLAN.steps[0]),)
    assert next_commands(after(CALLING, tool_returned("s1"))) == (WriteEvents((ev.StepCompleted(step_id="s1"),)),)
    assert next_commands(CALLING) == (CallTool(PLAN.steps[0]),)
    reason = "the service stopped, or lost the call, before the answer came"
    lost = ev.StepOutcomeUnknown(step_id="s2", call_id="c1", reason=reason)
    assert next_commands(WRITING) == (WriteEvents((lost,)),)


def test_an_error_is_repeated_as_often_as_the_step_says_and_then_fails() -> None:
    once = after(CALLING, tool_returned("s1", result=BAD))
    assert next_commands(once) == (CallTool(PLAN.steps[0]),)
    twice = after(once, tool_called("s1", "c2", 2), tool_returned("s1", "c2", StoredResult(is_error=True)))
    failed = ev.StepFailed(step_id="s1", code="tool_error", message="f.read failed: it gave no reason")
    assert next_commands(twice) == (WriteEvents((failed,)),)
    skips = [ev.StepSkipped(step_id=name, reason="it needs s1, which failed") for name in ("s2", "s3", "s4")]
    (end,) = next_commands(after(twice, failed, *skips))
    assert end == WriteEvents((ev.TaskFailed(code="tool_error", message=failed.message, step_id="s1"),))


def test_an_unknown_outcome_is_repeated_three_times_at_most() -> None:
    task = CALLING
    for attempt in (2, 3):
        task = after(task, task_claimed(task.epoch + 1), tool_called("s1", f"c{attempt}", attempt))
    assert not may_repeat(task, "s1")
    (command,) = next_commands(task)
    assert isinstance(command, WriteEvents)
    assert command.events[0].type == "step.outcome_unknown"


def test_only_the_call_of_a_tool_step_may_be_repeated() -> None:
    assert not may_repeat(EXECUTING, "s1")
    assert not may_repeat(EXECUTING, "s4")
    with pytest.raises(KeyError):
        EXECUTING.plan_step("s9")
    with pytest.raises(KeyError):
        PENDING.plan_step("s1")


@pytest.mark.parametrize(
    ("budget", "used"), [(Budget(tool_calls=1), "1 tool_calls is used up (1)"), (Budget(seconds=0.5), "0.5 seconds")]
)
def test_a_budget_that_is_used_up_ends_the_task(budget: Budget, used: str) -> None:
    limits = Limits(budget=budget)
    task = after(replace(EXECUTING, limits=limits), *run_step("s1"))
    (command,) = next_commands(task)
    assert isinstance(command, WriteEvents)
    exceeded, end = command.events
    assert isinstance(exceeded, ev.BudgetExceeded)
    assert isinstance(end, ev.TaskFailed)
    assert f"The budget of {used}" in end.message
    assert after(task, exceeded, end).status is S.FAILED


def test_an_open_call_without_budget_for_another_is_asked_about() -> None:
    task = replace(CALLING, limits=Limits(budget=Budget(tool_calls=1)))
    (command,) = next_commands(task)
    assert isinstance(command, WriteEvents)
    assert command.events[0].type == "step.outcome_unknown"


def test_the_result_is_what_nobody_takes_up() -> None:
    assert result_of(PENDING) == ""
    task = after(WRITING, tool_returned("s2", result=StoredResult(output={"n": 1})), ev.StepCompleted(step_id="s2"))
    task = after(
        task,
        step_started("s3"),
        tool_called("s3"),
        tool_returned("s3", result=StoredResult()),
        ev.StepCompleted(step_id="s3"),
    )
    assert result_of(task) == '{"n":1}'
    long = StoredResult(text="x" * 300_000)
    assert len(result_of(after(WRITING, tool_returned("s2", result=long), ev.StepCompleted(step_id="s2")))) == 262_144


def test_a_journal_replays_to_the_same_state() -> None:
    assert replay("t", []) == Task("t")
    journal = [
        ev.make_record("t", 1, None, AT, EVENTS[0]),
        ev.make_record("t", 2, 1, AT + timedelta(seconds=1), task_claimed(1)),
    ]
    assert replay("t", journal) == after(PENDING, task_claimed(1))


@pytest.mark.parametrize(("retries", "attempts"), [(0, 3), (2, 3), (3, 4), (5, 6)])
def test_an_unknown_outcome_is_repeated_as_often_as_the_step_says_but_three_times_at_least(
    retries: int, attempts: int
) -> None:
    first = PLAN.steps[0].model_copy(update={"retries": retries})
    task = replace(CALLING, contract=PLAN.model_copy(update={"steps": (first, *PLAN.steps[1:])}))
    for attempt in range(2, attempts + 1):
        assert may_repeat(task, "s1")
        task = after(task, task_claimed(task.epoch + 1), tool_called("s1", f"c{attempt}", attempt))
    assert not may_repeat(task, "s1")


def test_the_seconds_of_a_budget_are_shown_to_the_millisecond() -> None:
    task = replace(EXECUTING, limits=Limits(budget=Budget(seconds=0.1)), call_seconds=0.12345)
    assert exceeded_budget(task) == ev.BudgetExceeded(budget="seconds", limit=0.1, used=0.123)


def test_the_results_that_nobody_takes_up_stand_one_below_the_other() -> None:
    task = after(WRITING, tool_returned("s2", result=StoredResult(text="one")), ev.StepCompleted(step_id="s2"))
    last = tool_returned("s3", result=StoredResult(text="two"))
    assert (
        result_of(after(task, step_started("s3"), tool_called("s3"), last, ev.StepCompleted(step_id="s3")))
        == "one\ntwo"
    )


def test_every_open_call_is_named_where_one_forbids_the_end() -> None:
    both = replace(WRITING, steps={**WRITING.steps, "s3": WRITING.steps["s2"]})
    with pytest.raises(IllegalTransitionError, match="a call of s2, s3 is open"):
        after(both, ev.TaskFailed(code="c", message="m"))


def test_a_step_of_unknown_outcome_says_why_it_is_unknown() -> None:
    asking = after(WRITING, unknown("s2"))
    asked_at = AT + timedelta(seconds=WRITING.version)
    asked = replace(WRITING.steps["s2"], status=StepStatus.UNKNOWN, message="lost", asked_at=asked_at)
    assert asking.steps["s2"] == asked
    assert (asking.status, asking.unknown_steps) == (S.NEEDS_ATTENTION, ("s2",))


def test_a_step_that_is_skipped_names_every_step_that_was_skipped_before_it() -> None:
    skipped = {name: StepState(StepStatus.SKIPPED) for name in ("s1", "s2", "s3")}
    last = PLAN.steps[3].model_copy(update={"depends_on": ("s3", "s2")})
    both = PLAN.model_copy(update={"steps": (*PLAN.steps[:3], last)})
    task = replace(EXECUTING, contract=both, steps={**EXECUTING.steps, **skipped})
    reason = "it needs s2, which was skipped, s3, which was skipped"
    assert next_commands(task) == (WriteEvents((ev.StepSkipped(step_id="s4", reason=reason),)),)


def test_a_budget_that_is_used_up_names_the_step_that_did_not_start() -> None:
    task = after(replace(EXECUTING, limits=Limits(budget=Budget(tool_calls=1))), *run_step("s1"))
    (command,) = next_commands(task)
    assert isinstance(command, WriteEvents)
    end = command.events[1]
    assert isinstance(end, ev.TaskFailed)
    assert (end.code, end.step_id) == ("budget_exceeded", "s2")


def test_a_decision_is_kept_with_its_time() -> None:
    assert after(AWAITING, APPROVED).approvals[0].at == AT + timedelta(seconds=AWAITING.version)


def test_a_refused_call_is_named_by_its_server_and_its_tool() -> None:
    with pytest.raises(IllegalTransitionError, match="'f/rm' is not what the step may call"):
        after(EXECUTING, step_started("s1"), tool_called("s1", tool="rm"))
    with pytest.raises(KeyError, match="s9"):
        EXECUTING.plan_step("s9")


def test_a_step_names_every_step_that_it_waits_for() -> None:
    last = PLAN.steps[3].model_copy(update={"depends_on": ("s3", "s2")})
    task = replace(EXECUTING, contract=PLAN.model_copy(update={"steps": (*PLAN.steps[:3], last)}))
    with pytest.raises(IllegalTransitionError, match="it needs s2, s3"):
        after(task, step_started("s4"))
