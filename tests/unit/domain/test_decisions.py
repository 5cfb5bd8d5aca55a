"""The events of decisions, which follow from the task, the caller and the settings alone."""

from typing import Any

import pytest

from agent_runtime.config import LimitSettings
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Approve, ApproveCall, Cancel, DenyCall, Edit, Reject, Resolve, Revise
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.decisions import Judged, events_of, expect_editable
from agent_runtime.domain.errors import (
    CallNotFoundError,
    DecisionRefusedError,
    DigestMismatchError,
    DigestRequiredError,
    EditOutdatedError,
    InvalidInputError,
    ScopeMissingError,
)
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.signature import DEFAULT_TENANT
from agent_runtime.domain.task import Task
from agent_steps import LOOK, after, contract_of, make_executing_task, make_proposed_task, step_started, tool_called

CONTRACT = contract_of(LOOK)
WAITING = make_proposed_task(CONTRACT)
SENT = after(make_executing_task(CONTRACT), step_started("look"), tool_called("look", "read", {"x": 1}))
UNKNOWN = after(SENT, ev.StepOutcomeUnknown(step_id="look", call_id="c", reason="gone"))
EXPIRED = after(WAITING, ev.TaskExpired(revision=1, digest=CONTRACT.digest))
ENDED = after(WAITING, ev.PlanRejected(revision=1, digest=CONTRACT.digest))
CANCELLING = after(SENT, ev.TaskCancelRequested())


def make_asking_task() -> Task:
    asked = ev.CallApprovalRequested(
        step_id="look",
        call_id="q",
        server="f",
        tool="read",
        arguments={"x": 1},
        arguments_digest="sha256:aa",
        reason="r",
    )
    return after(make_executing_task(contract_of({**LOOK, "arguments": {"x": 1}})), asked)


def somebody(*scopes: str, name: str = "ann") -> Caller:
    return Caller(name, DEFAULT_TENANT, frozenset(scopes), "key")


ANN = somebody("approve", "read")
BLIND = somebody("approve")


def decide(task: Task, decision: Judged, caller: Caller = ANN, *, require_digest: bool = False) -> list[ev.Event]:
    return events_of(task, decision, caller, LimitSettings(), require_digest=require_digest)


# A plan


def test_an_approval_says_who_gave_it_with_which_scopes_and_whether_it_named_the_plan() -> None:
    digest = CONTRACT.digest
    (named,) = decide(WAITING, Approve(digest=digest, comment="fine"))
    assert named == ev.PlanApproved(
        revision=1, digest=digest, comment="fine", scopes=("approve", "read"), names_digest=True, **ANN.signature
    )
    (unnamed,) = decide(WAITING, Approve())
    assert unnamed == ev.PlanApproved(
        revision=1, digest=digest, scopes=("approve", "read"), names_digest=False, **ANN.signature
    )


def test_a_plan_must_be_named_where_the_settings_say_so_and_from_its_second_revision_on() -> None:
    with pytest.raises(DigestRequiredError, match=CONTRACT.digest):
        decide(WAITING, Approve(), require_digest=True)
    again = ev.PlanEdited(revision=2, digest=CONTRACT.digest, contract=CONTRACT, definitions=WAITING.definitions)
    with pytest.raises(DigestRequiredError, match="is revision 2"):
        decide(after(WAITING, again), Approve())
    with pytest.raises(DigestRequiredError) as refusal:
        decide(WAITING, Approve(), BLIND, require_digest=True)
    assert CONTRACT.digest not in str(refusal.value)


def test_another_plan_than_the_one_that_waits_is_not_approved() -> None:
    with pytest.raises(DigestMismatchError, match=f"revision 1 with the digest {CONTRACT.digest}, is not sha256:bb"):
        decide(WAITING, Approve(digest="sha256:bb"))
    with pytest.raises(DigestMismatchError) as refusal:
        decide(WAITING, Approve(digest="x" * 1000), BLIND)
    assert CONTRACT.digest not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_nobody_approves_what_they_wrote_unless_they_may_submit() -> None:
    author = somebody("approve", "read", name=ev.ANONYMOUS)
    with pytest.raises(ScopeMissingError, match="Nobody approves what they wrote"):
        decide(WAITING, Approve(), author)
    both = somebody("approve", "submit", name=ev.ANONYMOUS)
    assert [event.type for event in decide(WAITING, Approve(), both)] == ["plan.approved"]


def test_a_rejection_and_feedback_are_about_the_plan_that_waits() -> None:
    of_this = {"revision": 1, "digest": CONTRACT.digest, **ANN.signature}
    assert decide(WAITING, Reject(reason="no")) == [ev.PlanRejected(reason="no", **of_this)]
    assert decide(WAITING, Revise(feedback="shorter")) == [ev.PlanRevisionRequested(feedback="shorter", **of_this)]


def test_feedback_on_the_task_of_another_takes_a_scope_and_something_to_say() -> None:
    with pytest.raises(ScopeMissingError, match="'read' or 'approve'"):
        decide(WAITING, Revise(feedback="x"), somebody("submit"))
    assert decide(WAITING, Revise(feedback="x"), somebody("submit", name=ev.ANONYMOUS))
    for feedback, said in ((" \n", "is empty"), ("\ud800", "cannot be stored"), ("x" * 65_537, "over the limit")):
        with pytest.raises(InvalidInputError, match=said):
            decide(WAITING, Revise(feedback=feedback))


PLAN = Plan.model_validate({"goal": "g", "steps": [LOOK]})


@pytest.mark.parametrize(
    ("task", "digests", "error"),
    [
        (WAITING, None, DigestRequiredError),
        (WAITING, frozenset({"sha256:bb"}), EditOutdatedError),
        (ENDED, frozenset({CONTRACT.digest}), DecisionRefusedError),
    ],
)
def test_only_the_plan_that_waits_is_edited_and_it_must_be_named(
    task: Task, digests: frozenset[str] | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        expect_editable(task, Edit(plan=PLAN, digests=digests), ANN, LimitSettings())
    expect_editable(WAITING, Edit(plan=PLAN, digests=frozenset({CONTRACT.digest})), ANN, LimitSettings())


def test_a_journal_that_is_full_takes_no_other_plan() -> None:
    full = LimitSettings(journal_bytes=1)
    task = after(WAITING)
    for decide in (
        lambda: expect_editable(task, Edit(plan=PLAN, digests=frozenset({CONTRACT.digest})), ANN, full),
        lambda: events_of(task, Revise(feedback="x"), ANN, full, require_digest=False),
    ):
        if task.journal_bytes > 1:
            with pytest.raises(DecisionRefusedError, match="cannot be changed again"):
                decide()
        else:
            raise AssertionError("the task of this test has written nothing")


# Any task


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (EXPIRED, "was not approved in time"),
        (ENDED, "is rejected; only a task that is awaiting_approval can be"),
        (SENT, "is executing; only a task that is awaiting_approval can be"),
        (CANCELLING, "is being cancelled"),
        (make_asking_task(), "It asks for its call q: answer for that one"),
    ],
)
@pytest.mark.parametrize("decision", [Approve(), Reject(), Revise(feedback="x")])
def test_a_plan_is_decided_only_while_it_waits(task: Task, said: str, decision: Judged) -> None:
    with pytest.raises(DecisionRefusedError, match=said) as refusal:
        decide(task, decision)
    assert refusal.value.status == task.status


def test_who_may_not_read_is_not_told_what_is_asked() -> None:
    with pytest.raises(DecisionRefusedError) as refusal:
        decide(make_asking_task(), Approve(), BLIND)
    assert "call q" not in str(refusal.value)


def test_a_cancel_ends_a_task_at_once_unless_a_call_is_open() -> None:
    requested = ev.TaskCancelRequested(reason="enough", **ANN.signature)
    assert decide(WAITING, Cancel(reason="enough")) == [requested, ev.TaskCancelled()]
    assert decide(UNKNOWN, Cancel(reason="enough")) == [requested, ev.TaskCancelled(unknown_steps=("look",))]
    assert decide(SENT, Cancel(reason="enough")) == [requested]
    assert decide(CANCELLING, Cancel()) == []
    with pytest.raises(DecisionRefusedError, match="can no longer be cancelled"):
        decide(ENDED, Cancel())


# A call


def test_a_call_is_approved_or_denied_by_its_id_and_its_arguments() -> None:
    about = {"step_id": "look", "call_id": "q", "arguments_digest": "sha256:aa", "comment": "c", **ANN.signature}
    said = {"call_id": "q", "arguments_digest": "sha256:aa", "comment": "c"}
    assert decide(make_asking_task(), ApproveCall(**said)) == [ev.CallApproved(**about, scopes=("approve", "read"))]
    assert decide(make_asking_task(), DenyCall(**said)) == [ev.CallDenied(**about)]


@pytest.mark.parametrize("kind", [ApproveCall, DenyCall])
def test_a_call_is_not_decided_twice_nor_for_other_arguments(kind: type[ApproveCall | DenyCall]) -> None:
    task = make_asking_task()
    with pytest.raises(CallNotFoundError, match="'other'"):
        decide(task, kind(call_id="other", arguments_digest="sha256:aa"))
    with pytest.raises(DigestMismatchError, match="has the arguments_digest sha256:aa, not sha256:bb"):
        decide(task, kind(call_id="q", arguments_digest="sha256:bb"))
    with pytest.raises(DigestMismatchError) as refusal:
        decide(task, kind(call_id="q", arguments_digest="sha256:bb"), BLIND)
    assert "sha256:aa" not in str(refusal.value)
    decided = after(task, *decide(task, kind(call_id="q", arguments_digest="sha256:aa")))
    with pytest.raises(DecisionRefusedError, match="was already decided"):
        decide(decided, kind(call_id="q", arguments_digest="sha256:aa"))


def test_who_shaped_a_task_may_deny_its_calls_and_not_approve_them() -> None:
    author = somebody("approve", "read", name=ev.ANONYMOUS)
    with pytest.raises(ScopeMissingError):
        decide(make_asking_task(), ApproveCall(call_id="q", arguments_digest="sha256:aa"), author)
    assert decide(make_asking_task(), DenyCall(call_id="q", arguments_digest="sha256:aa"), author)


# An outcome that nobody knows


def test_a_person_says_what_became_of_a_call() -> None:
    (done,) = decide(UNKNOWN, Resolve(step_id="look", resolution="done", output={"n": 1}, comment="seen"))
    assert done == ev.StepResolved(
        step_id="look", call_id="c", resolution="done", output={"n": 1}, comment="seen", **ANN.signature
    )


def make_nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Resolve(step_id="other", resolution="done"), "'other' has no call of unknown outcome; look has"),
        (Resolve(step_id="look", call_id="d", resolution="done"), "The call of unknown outcome is 'c', not 'd'"),
        (Resolve(step_id="look", resolution="skip", output=1), "Only the resolution 'done' takes an output"),
        (Resolve(step_id="look", resolution="done", output="\ud800"), "JSON cannot hold it exactly"),
        (Resolve(step_id="look", resolution="done", output=make_nested(101)), "nested more than 100 deep"),
        (Resolve(step_id="look", resolution="done", output="x" * 300_000), "300002 bytes are over the limit of 262144"),
    ],
)
def test_a_resolution_that_does_not_fit_is_refused_with_what_is_wrong(decision: Resolve, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decide(UNKNOWN, decision)


def test_only_an_unknown_outcome_is_resolved() -> None:
    with pytest.raises(InvalidInputError, match="it asks for the approval of a concrete call"):
        decide(make_asking_task(), Resolve(step_id="look", resolution="done"))
    with pytest.raises(DecisionRefusedError, match="only a task that is needs_attention can be resolved"):
        decide(SENT, Resolve(step_id="look", resolution="done"))
