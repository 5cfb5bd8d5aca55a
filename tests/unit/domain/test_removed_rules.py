"""Each rule behind G2, G4, G5 and G7 is taken out in turn, and the life of a task must then break that guarantee."""

import os
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agent_runtime.domain import asking, call_rules, commands, contract, transitions
from agent_runtime.domain import events as ev
from agent_runtime.domain.asking import reason_to_ask
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.call_rules import CallRefusedError, Proposal
from agent_runtime.domain.folds import FOLDS as ALL_FOLDS
from agent_runtime.domain.folds import calls, plans, tasks
from agent_runtime.domain.folds.base import Changes
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepState, StepStatus, Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.services import decisions
from unit.domain.life import machine, run
from unit.domain.life.plans import plan

# These judge the judge, not the core: under mutation they would notice what is no fault.
pytestmark = pytest.mark.skipif("MUTANT_UNDER_TEST" in os.environ, reason="the rules are changed already")

SEARCH = settings(
    max_examples=3000,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

Removal = Callable[[pytest.MonkeyPatch], None]

FOLDS: dict[type[ev.Event], Any] = ALL_FOLDS


def allow_events(kinds: set[type[ev.Event]], statuses: set[TaskStatus]) -> Removal:
    """The table without its word on these events in these statuses."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            patch.setattr(kind, "follows", kind.follows | statuses)

    return remove


def without(module: ModuleType, *names: str) -> Removal:
    """The folds or the rules without these checks of theirs."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(module, name, lambda *_: None)

    return remove


def put(patch: pytest.MonkeyPatch, kind: type[ev.Event], fold: Callable[..., Changes]) -> None:
    """Another fold of this event."""
    patch.setitem(FOLDS, kind, fold)


def repeating_everything(patch: pytest.MonkeyPatch) -> None:
    for module in (calls, commands, call_rules, run):
        patch.setattr(module, "may_repeat", lambda *_: True)


def taking_every_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "_check_epoch", lambda *_: None)


def sending_before_writing(patch: pytest.MonkeyPatch) -> None:
    """The intents reach the servers before they are in the journal."""
    decide = run.Run.decide

    def hasty(self: run.Run, strayed: list[run.Work], *, instant: str) -> list[run.Work]:
        begun = decide(self, strayed, instant=instant)
        for work in begun:
            if isinstance(work, ev.ToolCalled):
                self.store.world.receive(work)
        return begun

    patch.setattr(run.Run, "decide", hasty)


def calling_without_asking(patch: pytest.MonkeyPatch) -> None:
    """The rules do not ask, and the fold lets a run call."""
    patch.setattr(call_rules, "_reason_to_ask", lambda *_: None)
    patch.setattr(calls, "_check_granted", lambda *_: None)


def approving_what_they_wrote(patch: pytest.MonkeyPatch) -> None:
    """Neither the service nor the folds ask who has shaped what is approved."""
    patch.setattr(decisions, "_check_author", lambda *_: None)
    for module in (plans, calls):
        patch.setattr(module, "check_approver", lambda *_: None)


def taking_the_policy_for_a_person(patch: pytest.MonkeyPatch) -> None:
    """What a plan says is approved with it is taken so, whoever approved the plan."""
    patch.setattr(Task, "is_for_person", property(lambda _: True))


def trusting_the_world(patch: pytest.MonkeyPatch) -> None:
    """No contract says that a concrete call is to be asked for."""
    patch.setattr(contract, "reasons_to_ask", lambda *_: {})
    patch.setattr(machine, "plan", cache(plan.__wrapped__))  # not those that are kept


def letting_everything_out(patch: pytest.MonkeyPatch) -> None:
    """Whatever the arguments of a call hold, it may reach beyond this machine."""
    named = asking._describe_sources  # noqa: SLF001 - this is the rule
    patch.setattr(asking, "_describe_sources", lambda given, counts: "" if counts("a model") else named(given, counts))
    patch.setattr(machine, "plan", cache(plan.__wrapped__))  # not those that are kept


def letting_a_model_out(patch: pytest.MonkeyPatch) -> None:
    """A model may look at the world outside with whatever it likes."""
    reason = asking._reason_of_agent  # noqa: SLF001 - this is the rule
    patch.setattr(asking, "_reason_of_agent", lambda key, judged: (key != "f/page" and reason(key, judged)) or None)


def taking_every_tool(patch: pytest.MonkeyPatch) -> None:
    called = FOLDS[ev.ToolCalled]

    def lax(task: Task, event: ev.ToolCalled, record: ev.EventRecord) -> Changes:
        step = task.plan_step(event.step_id)
        tool = getattr(step, "tool", event.tool)
        changes: Changes = called(task, event.model_copy(update={"tool": tool}), record)
        return changes

    put(patch, ev.ToolCalled, lax)


def sending_references_as_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(call_rules, "resolve", lambda value, *_, **_bounds: value)


def not_waiting_for_results(patch: pytest.MonkeyPatch) -> None:
    """`next_commands` begins whatever is pending, and the fold lets it."""
    wanted = commands.next_commands

    def eager(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        ready = wanted(task, in_flight)
        if task.status is not TaskStatus.EXECUTING or task.cancel_requested or task.contract is None:
            return ready
        if exceeded_budget(task):
            return ready
        pending = [step for step in task.contract.steps if task.steps[step.id].status is StepStatus.PENDING]
        begin = [commands.CallTool(step) for step in pending if step.kind == "tool" and step.id not in in_flight]
        return (*begin, *ready)

    patch.setattr(commands, "next_commands", eager)
    without(calls, "_check_ready")(patch)
    without(call_rules, "_check_turn")(patch)


def going_on_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """`next_commands`, the rules and the folds are deaf to it."""
    wanted = commands.next_commands

    def deaf(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        heard = task.cancel_requested and task.status is not TaskStatus.EXECUTING
        return wanted(replace(task, cancel_requested=heard), in_flight)

    patch.setattr(commands, "next_commands", deaf)
    judging_a_cancelled_task(patch)
    for module in (calls, plans, tasks):
        patch.setattr(module, "check_not_cancelled", lambda *_: None)


def sending_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """The run does not look once more before it sends."""

    def send(self: run.Run, work: run.Work) -> None:
        if isinstance(work, ev.ToolCalled):
            self.store.world.receive(work)
        self.waiting.append(work)

    patch.setattr(run.Run, "send", send)


def completing_what_has_not_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tasks, "_WELL_ENDED", frozenset(StepStatus))


def completing_without_a_result(patch: pytest.MonkeyPatch) -> None:
    def lax(task: Task, event: ev.StepCompleted, _: ev.EventRecord) -> Changes:
        state = task.steps[event.step_id]
        result = state.call.result if state.call else state.turns[-1].answer if state.turns else None
        done = replace(state, status=StepStatus.COMPLETED, result=result)
        return {"steps": {**task.steps, event.step_id: done}}

    def hasty(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        if task.status is TaskStatus.EXECUTING and not task.cancel_requested:
            lost = [name for name in task.open_calls if name not in in_flight]
            if lost:
                return (commands.WriteEvents((ev.StepCompleted(step_id=lost[0]),)),)
        return wanted(task, in_flight)

    wanted = commands.next_commands
    patch.setattr(commands, "next_commands", hasty)
    put(patch, ev.StepCompleted, lax)


def judging_a_cancelled_task(patch: pytest.MonkeyPatch) -> None:
    check = call_rules._check_task  # noqa: SLF001 - this is the rule
    patch.setattr(call_rules, "_check_task", lambda task: check(replace(task, cancel_requested=False)))


def planned_whatever_is_listed(patch: pytest.MonkeyPatch) -> None:
    """A step of the model's may call whatever the plan has pinned; what the model asks for is not looked at."""
    planned = call_rules._find_step  # noqa: SLF001 - this is the rule

    def lax(task: Task, proposal: Proposal) -> Any:
        step = next((step for step in (task.contract.steps if task.contract else ()) if step.id == proposal.step_id), 0)
        known = f"{proposal.server}/{proposal.tool}" in task.definitions
        return step if isinstance(step, AgentStep) and known else planned(task, proposal)

    patch.setattr(call_rules, "_find_step", lax)
    patch.setattr(call_rules, "_check_uses", lambda _step, state, _: expect_pending(state))


def expect_pending(state: StepState) -> None:
    if state.pending is None:
        raise CallRefusedError("used_up", "its model asks for nothing")


def calling_as_often_as_it_likes(patch: pytest.MonkeyPatch) -> None:
    """The rules count no calls of an agent."""
    check = call_rules._check_uses  # noqa: SLF001 - this is the rule
    patch.setattr(call_rules, "_check_uses", lambda step, state, it: check(step, replace(state, sent=()), it))


def calling_what_was_settled(patch: pytest.MonkeyPatch) -> None:
    """What the model has got its answer for may be called once more, and the rules let it be what it is not."""
    patch.setattr(call_rules, "_check_uses", lambda *_: None)


def taking_all_arguments(patch: pytest.MonkeyPatch) -> None:
    """The rules do not compare what somebody wants to send with what it should be."""
    judge = call_rules.judge

    def lax(task: Task, proposal: Proposal, *more: Any) -> call_rules.PermittedCall:
        return judge(task, replace(proposal, arguments=None), *more)

    patch.setattr(call_rules, "judge", lax)


def taking_every_call_of_an_agent(patch: pytest.MonkeyPatch) -> None:
    """The fold does not look at what the model asks for, nor at what the step lists."""

    def reason(terms: contract.Contract, step: ToolStep | AgentStep, key: str, *, by_person: bool) -> str | None:
        return reason_to_ask(terms, step, key, by_person=by_person) if key in terms.policy else None

    patch.setattr(calls, "_check_proposed", lambda *_: None)
    patch.setattr(calls, "reason_to_ask", reason)


def counting_no_calls(patch: pytest.MonkeyPatch) -> None:
    """Neither the rules nor the fold count the calls of an agent."""
    calling_as_often_as_it_likes(patch)
    check = calls._check_proposed  # noqa: SLF001 - this is the rule
    lax = lambda task, event, step, state: check(task, event, step, replace(state, sent=()))  # noqa: E731 - as above
    patch.setattr(calls, "_check_proposed", lax)


def taking_every_turn(patch: pytest.MonkeyPatch) -> None:
    """An answer is taken for the turn that is next, whichever it says it is."""
    answered = FOLDS[ev.ModelAnswered]

    def lax(task: Task, event: ev.ModelAnswered, record: ev.EventRecord) -> Changes:
        turn = len(task.steps[event.step_id].turns) + 1
        changes: Changes = answered(task, event.model_copy(update={"turn": turn}), record)
        return changes

    put(patch, ev.ModelAnswered, lax)


def completing_an_agent_in_the_middle(patch: pytest.MonkeyPatch) -> None:
    """What a model has said so far is taken for its result."""
    completed = FOLDS[ev.StepCompleted]

    def lax(task: Task, event: ev.StepCompleted, record: ev.EventRecord) -> Changes:
        state = task.steps.get(event.step_id)
        if state is not None and state.status is StepStatus.RUNNING and state.turns and not state.call:
            done = replace(state, status=StepStatus.COMPLETED, result=state.turns[-1].answer or StoredResult(text="?"))
            return {"steps": {**task.steps, event.step_id: done}}
        changes: Changes = completed(task, event, record)
        return changes

    put(patch, ev.StepCompleted, lax)


def going_on_with_what_was_repinned(patch: pytest.MonkeyPatch) -> None:
    """A plan for other servers runs under the approval of the one before."""
    repinned = FOLDS[ev.PlanRepinned]

    def lax(task: Task, event: ev.PlanRepinned, record: ev.EventRecord) -> Changes:
        changes: Changes = repinned(task, event, record)
        return {**changes, "status": task.status}

    put(patch, ev.PlanRepinned, lax)


def reckless() -> type[machine.LifeOfATask]:
    """The machine, in which somebody loses their mind more often."""
    wrong = machine.LifeOfATask.somebody_has_lost_their_mind
    return machine.lives(may_go_wrong=True, wrong_again=wrong, wrong_once_more=wrong)


S = TaskStatus
# The guarantees that may be found broken first: a tool called too often is both a repetition and outside the plan.
REMOVED: Mapping[str, tuple[str, Removal]] = {
    "only idempotent calls are repeated": ("G2", repeating_everything),
    "only the newest claim writes": ("G2", taking_every_epoch),
    "the intent is written first": ("G2", sending_before_writing),
    "a decision names the current plan": ("G4", without(plans, "_check_current_plan")),
    "only what awaits approval is approved": ("G4", allow_events({ev.PlanApproved}, {S.EXECUTING, S.NEEDS_ATTENTION})),
    "an approved plan is not edited": ("G4", allow_events({ev.PlanEdited}, {S.APPROVED, S.EXECUTING})),
    "a plan is made anew before its first step": ("G4", without(plans, "_check_not_begun")),
    "a plan that is made anew awaits approval": ("G4", going_on_with_what_was_repinned),
    "a concrete call needs an answer": ("G4", calling_without_asking),
    "what comes from outside is asked for": ("G4", trusting_the_world),
    "only a person approves a call with the plan": ("G4", taking_the_policy_for_a_person),
    "what would leave is asked for": ("G4", letting_everything_out),
    "what a model sends outside is asked for": ("G4", letting_a_model_out),
    "nobody approves what they wrote": ("G4", approving_what_they_wrote),
    "nothing begins before approval": ("G4", allow_events({ev.StepStarted, ev.ToolCalled}, {S.AWAITING_APPROVAL})),
    "a step calls its own tool": ("G5 G2", taking_every_tool),
    "a step waits for its turn": ("G5", without(calls, "_check_ready")),
    "a step waits for what it needs": ("G5", not_waiting_for_results),
    "references are resolved": ("G5", sending_references_as_they_are),
    "nothing follows the end": ("G7", allow_events({ev.TaskCancelRequested}, set(S))),
    "nothing begins after a cancel": ("G7", going_on_after_a_cancel),
    "nothing is sent after a cancel": ("G7", sending_after_a_cancel),
    "only what has ended well is completed": ("G7", completing_what_has_not_ended),
    "a step is completed with its result": ("G7", completing_without_a_result),
    # Of agent steps, and of whoever proposes a call. The rules and the folds are two lines of defence: each by itself.
    "rules: a call is of a tool that the step lists": ("G5 G2", planned_whatever_is_listed),
    "rules: a call is the one that the model asks for": ("G5", calling_what_was_settled),
    "rules: a tool is called as often as the plan says": ("G5 G2", calling_as_often_as_it_likes),
    "rules: arguments are those that they should be": ("G5", taking_all_arguments),
    "rules: a person is asked": ("G4", without(call_rules, "_reason_to_ask")),
    "rules: nothing is permitted after a cancel": ("G7", judging_a_cancelled_task),
    "folds: a call is the one that the model asks for": ("G5", taking_every_call_of_an_agent),
    "folds: a concrete call needs an answer": ("G4", without(calls, "_check_granted")),
    "folds: nobody approves what they wrote": ("G4", without(plans, "check_approver")),
    "folds: a turn is recorded once": ("G2", taking_every_turn),
    "folds: an agent is done when its model says so": ("G7", completing_an_agent_in_the_middle),
    "both: a tool is called as often as the plan says": ("G5 G2", counting_no_calls),
}


CALM = frozenset({"nothing is sent after a cancel"})
"""Rules that are missed sooner where nobody loses their mind as often."""


EVERYDAY = frozenset(
    {
        "only idempotent calls are repeated",
        "nothing begins before approval",
        "a step calls its own tool",
        "nothing follows the end",
    }
)
"""One rule for each guarantee, missed at once. The search takes seconds for others, so CI alone tries those."""


@pytest.mark.slow
def test_with_every_rule_in_place_nothing_is_missed() -> None:
    run_state_machine_as_test(reckless(), settings=settings(SEARCH, max_examples=50))


@pytest.mark.parametrize(
    "rule", [rule if rule in EVERYDAY else pytest.param(rule, marks=pytest.mark.slow) for rule in REMOVED]
)
def test_a_rule_that_is_removed_is_missed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guarantees, remove = REMOVED[rule]
    remove(monkeypatch)
    with pytest.raises(AssertionError) as broken:
        run_state_machine_as_test(machine.lives() if rule in CALM else reckless(), settings=SEARCH)
    found = set(re.findall(r"G\d", str(broken.value)))
    assert found
    assert found <= set(guarantees.split())
