"""G4, G5, G7: every rule for a proposed call, by its name."""

from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.call_rules import (
    Bounds,
    CallRefusedError,
    PermittedCall,
    Proposal,
    judge,
    next_proposal,
    parse_model_arguments,
)
from agent_runtime.domain.contract import Budget
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import Denial
from agent_runtime.domain.values import digest
from agent_steps import (
    AGENT,
    LAST,
    LOOK,
    after,
    contract_of,
    make_executing_task,
    make_proposed_task,
    make_task_after_look,
    model_answered,
    step_started,
    tool_called,
    tool_returned,
)

PLAN = contract_of(LOOK, AGENT, LAST)
PREAPPROVED = contract_of(LOOK, {**AGENT, "preapproved": True}, LAST)
EXECUTING = make_executing_task(PLAN)
READ = Proposal("look", "f", "read")
DOING = after(make_task_after_look(PLAN), step_started("do"))


def refusal(task: Task, proposal: Proposal, **more: Any) -> str:
    with pytest.raises(CallRefusedError) as refused:
        judge_proposal(task, proposal, **more)
    assert str(refused.value)
    return refused.value.rule


def judge_proposal(
    task: Task, proposal: Proposal, in_flight: frozenset[str] = frozenset(), denials: tuple[Denial, ...] = ()
) -> PermittedCall:
    return judge(task, proposal, in_flight, denials, Bounds(1000))


def own(task: Task, step_id: str) -> Proposal:
    return next_proposal(task, task.plan_step(step_id))


def test_the_call_of_the_plan_is_permitted_with_its_arguments() -> None:
    permitted = judge_proposal(EXECUTING, own(EXECUTING, "look"))
    assert (permitted.arguments, permitted.arguments_digest) == ({"x": 1}, digest({"x": 1}))
    assert (permitted.attempt, permitted.timeout_s, permitted.reason) == (1, 60.0, None)
    assert judge_proposal(EXECUTING, Proposal("look", "f", "read", {"x": 1})) == permitted


CANCELLING = after(EXECUTING, step_started("look"), tool_called("look", "read", {"x": 1}), ev.TaskCancelRequested())


@pytest.mark.parametrize(
    ("task", "rule"),
    [
        (CANCELLING, "cancelled"),
        (after(CANCELLING, tool_returned("look"), ev.TaskCancelled()), "cancelled"),
        (after(EXECUTING, ev.TaskCancelRequested(), ev.TaskCancelled()), "cancelled"),
        (after(make_proposed_task(PLAN), ev.TaskExpired(revision=1, digest=PLAN.digest)), "expired"),
        (after(make_proposed_task(PLAN), ev.PlanRejected(revision=1, digest=PLAN.digest)), "ended"),
        (make_proposed_task(PLAN), "not_approved"),
        (after(make_proposed_task(PLAN), ev.PlanApproved(revision=1, digest=PLAN.digest)), "not_approved"),
        (after(Task("t"), ev.TaskSubmitted(prompt="p")), "not_approved"),
    ],
)
def test_nothing_is_called_unless_the_task_is_executing(task: Task, rule: str) -> None:
    assert refusal(task, READ) == rule


@pytest.mark.parametrize(
    "proposal",
    [
        Proposal("nowhere", "f", "read"),
        Proposal("look", "f", "write"),
        Proposal("look", "f", "delete_all"),
        Proposal("look", "other", "read"),
        Proposal("last", "f", "read"),
    ],
)
def test_what_the_step_does_not_name_is_not_in_the_plan(proposal: Proposal) -> None:
    assert refusal(EXECUTING, proposal) == "not_in_plan"


def test_other_arguments_than_the_approved_ones_are_refused() -> None:
    assert refusal(EXECUTING, Proposal("look", "f", "read", {"x": 2})) == "arguments_differ"
    assert refusal(EXECUTING, Proposal("look", "f", "read", {})) == "arguments_differ"
    assert refusal(EXECUTING, Proposal("look", "f", "read", {"x": float("nan")})) == "invalid_arguments"


def test_a_step_whose_turn_has_not_come_may_not_call() -> None:
    assert refusal(EXECUTING, Proposal("last", "f", "wipe")) == "not_current"


def test_a_call_may_be_used_once() -> None:
    calling = after(EXECUTING, step_started("look"), tool_called("look", "read", {"x": 1}))
    assert refusal(calling, READ, in_flight=frozenset({"look"})) == "used_up"
    back = after(calling, tool_returned("look"))
    assert refusal(back, READ) == "used_up"
    assert refusal(after(back, ev.StepCompleted(step_id="look")), READ) == "used_up"


def test_an_idempotent_call_whose_answer_was_lost_may_be_repeated() -> None:
    calling = after(EXECUTING, step_started("look"), tool_called("look", "read", {"x": 1}))
    assert judge_proposal(after(calling, ev.TaskClaimed(runner="r", epoch=3)), READ).attempt == 2


def test_a_budget_that_is_used_up_allows_no_call() -> None:
    plan = contract_of(LOOK, {**LOOK, "id": "again"}, budget=Budget(tool_calls=1))
    task = after(
        make_executing_task(plan), step_started("look"), tool_called("look", "read", {"x": 1}), tool_returned("look")
    )
    assert refusal(task, Proposal("again", "f", "read")) == "budget_exceeded"


def test_the_operators_denial_beats_an_approval() -> None:
    denial = Denial(tool="read", arguments={"x": "1"})
    assert refusal(EXECUTING, READ, denials=(denial,)) == "denied"
    assert judge_proposal(EXECUTING, READ, denials=(Denial(tool="read", arguments={"x": "2"}),))


def asks(*wanted: tuple[str, Any], task: Task = DOING) -> Task:
    return after(task, model_answered(1, *wanted))


def test_a_model_may_call_what_its_step_lists() -> None:
    task = asks(("f__read", {"x": 7}), ("f__write", {}))
    permitted = judge_proposal(task, own(task, "do"))
    assert (permitted.arguments, permitted.reason, permitted.timeout_s) == ({"x": 7}, None, 60.0)


@pytest.mark.parametrize("name", ["f__wipe", "delete_all", "f/read", "read", "", "F__READ"])
def test_a_model_may_call_nothing_else(name: str) -> None:
    task = asks((name, {"x": 1}))
    assert own(task, "do").tool in {name, "wipe"}
    assert refusal(task, own(task, "do")) == "not_in_plan"


def test_a_step_without_an_answer_of_its_model_may_call_nothing() -> None:
    assert refusal(DOING, Proposal("do", "f", "read")) == "used_up"


def test_an_executor_may_not_call_what_the_model_did_not_ask_for() -> None:
    task = asks(("f__read", {"x": 7}))
    assert refusal(task, Proposal("do", "f", "write", {"x": 7})) == "not_current"
    assert refusal(task, Proposal("do", "f", "read", {"x": 8})) == "arguments_differ"
    assert judge_proposal(task, Proposal("do", "f", "read", {"x": 7}))


def test_a_call_of_an_answer_is_made_once() -> None:
    task = asks(("f__read", {"x": 7}))
    first = own(task, "do")
    task = after(task, tool_called("do", "read", {"x": 7}, turn=1, index=0), tool_returned("do"))
    assert refusal(task, first) == "used_up"
    assert refusal(asks(("f__read", {}), task=DOING), first) == "used_up"


def test_a_tool_is_called_as_often_as_the_step_allows() -> None:
    task = asks(*[("f__read", {"x": number}) for number in range(3)])
    for number in range(2):
        call = tool_called("do", "read", {"x": number}, f"c{number}", turn=1, index=number)
        task = after(task, call, tool_returned("do", f"c{number}"))
    assert refusal(task, own(task, "do")) == "used_up"


@pytest.mark.parametrize(
    "given", ["{", "[]", '"text"', "nothing", '{"x": NaN}', '{"x": 1.5e999}', '{"x":' * 200 + "1" + "}" * 200]
)
def test_arguments_that_are_no_object_are_refused(given: str) -> None:
    task = asks(("f__read", given))
    assert refusal(task, own(task, "do")) == "invalid_arguments"


@pytest.mark.parametrize("given", [{"x": "one"}, {"y": 1}, {"x": 0.5}])
def test_arguments_that_the_tool_does_not_take_are_refused(given: dict[str, Any]) -> None:
    task = asks(("f__read", given))
    assert refusal(task, own(task, "do")) == "invalid_arguments"


def test_arguments_are_read_as_the_model_wrote_them() -> None:
    assert parse_model_arguments('{"a": [1, 2.5, null, "b"]}') == {"a": [1, 2.5, None, "b"]}
    assert parse_model_arguments("") == {}


def test_a_model_that_writes_asks_a_person_unless_the_approver_allowed_it() -> None:
    task = asks(("f__write", {"x": 1}))
    assert (
        judge_proposal(task, own(task, "do")).reason
        == "a model chooses the arguments of f/write, whose effect is write"
    )
    allowed = asks(("f__write", {"x": 1}), task=after(make_task_after_look(PREAPPROVED), step_started("do")))
    assert judge_proposal(allowed, own(allowed, "do")).reason is None


def test_the_call_that_a_person_approved_is_the_one_that_is_sent() -> None:
    task = asks(("f__write", {"x": 1}))
    question = ev.CallApprovalRequested(
        step_id="do",
        call_id="c",
        server="f",
        tool="write",
        arguments={"x": 1},
        arguments_digest=digest({"x": 1}),
        reason="r",
        turn=1,
        index=0,
    )
    task = after(task, question)
    assert refusal(task, own(task, "do")) == "not_current"
    yes = ev.CallApproved(step_id="do", call_id="c", arguments_digest=digest({"x": 1}))
    task = after(task, yes, ev.TaskClaimed(runner="r", epoch=3))
    assert judge_proposal(task, own(task, "do")).reason is None
