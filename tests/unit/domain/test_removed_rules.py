"""Remove each rule behind G2, G4, G5 and G7 in turn: the state machine must then find that guarantee broken."""

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

from agent_runtime.domain import asking, call_rules, commands, contract, decisions, drafting, transitions
from agent_runtime.domain import events as ev
from agent_runtime.domain.asking import reason_to_ask
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.call_rules import CallRefusedError, Proposal
from agent_runtime.domain.folds import FOLDS as ALL_FOLDS
from agent_runtime.domain.folds import calls, plans, questions, tasks
from agent_runtime.domain.folds.base import Changes
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepState, StepStatus, Task
from agent_runtime.domain.tools import StoredResult
from unit.domain.life import machine, run
from unit.domain.life.plans import draft_contract

# These test the judge, not the core: under mutation they would report mutants that are not faults.
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
    """Return a removal that allows these events in these statuses."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            patch.setattr(kind, "follows", kind.follows | statuses)

    return remove


def remove_checks(module: ModuleType, *names: str) -> Removal:
    """Return a removal of these checks of the folds or the rules."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(module, name, lambda *_: None)

    return remove


def replace_fold(patch: pytest.MonkeyPatch, kind: type[ev.Event], fold: Callable[..., Changes]) -> None:
    """Replace the fold of an event."""
    patch.setitem(FOLDS, kind, fold)


def repeat_every_call(patch: pytest.MonkeyPatch) -> None:
    for module in (calls, commands, call_rules, run):
        patch.setattr(module, "may_repeat", lambda *_: True)


def accept_every_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "_check_epoch", lambda *_: None)


def send_before_writing(patch: pytest.MonkeyPatch) -> None:
    """Send calls before their intents are in the journal."""
    decide = run.Run.decide

    def hasty(self: run.Run, strays: list[run.Work], *, instant: str) -> list[run.Work]:
        begun = decide(self, strays, instant=instant)
        for work in begun:
            if isinstance(work, ev.ToolCalled):
                self.store.world.receive(work)
        return begun

    patch.setattr(run.Run, "decide", hasty)


def call_without_approval(patch: pytest.MonkeyPatch) -> None:
    """Neither the rules nor the fold require the approval of a call."""
    patch.setattr(call_rules, "_reason_to_ask", lambda *_: None)
    patch.setattr(calls, "_check_granted", lambda *_: None)


def approve_own_work(patch: pytest.MonkeyPatch) -> None:
    """Neither the service nor the folds check who wrote what is approved."""
    patch.setattr(decisions, "_check_author", lambda *_: None)
    for module in (plans, calls):
        patch.setattr(module, "check_approver", lambda *_: None)


def treat_policy_as_person(patch: pytest.MonkeyPatch) -> None:
    """The policy's approval of a plan covers its calls, as a person's would."""
    patch.setattr(Task, "is_for_person", property(lambda _: True))


def trust_outside_data(patch: pytest.MonkeyPatch) -> None:
    """No contract requires the approval of concrete calls."""
    patch.setattr(drafting, "reasons_to_ask", lambda *_: {})
    patch.setattr(machine, "draft_contract", cache(draft_contract.__wrapped__))  # without cached contracts


def let_data_leave(patch: pytest.MonkeyPatch) -> None:
    """Any data may leave this machine in the arguments of a call."""
    named = asking._describe_sources  # noqa: SLF001 - the rule to remove
    patch.setattr(asking, "_describe_sources", lambda given, counts: "" if counts("a model") else named(given, counts))
    patch.setattr(machine, "draft_contract", cache(draft_contract.__wrapped__))  # without cached contracts


def let_models_send_data(patch: pytest.MonkeyPatch) -> None:
    """A model may send any arguments to the outside."""
    reason = asking._reason_of_agent  # noqa: SLF001 - the rule to remove
    patch.setattr(asking, "_reason_of_agent", lambda key, judged: (key != "f/page" and reason(key, judged)) or None)


def accept_every_tool(patch: pytest.MonkeyPatch) -> None:
    called = FOLDS[ev.ToolCalled]

    def lax(task: Task, event: ev.ToolCalled, record: ev.EventRecord) -> Changes:
        step = task.plan_step(event.step_id)
        tool = getattr(step, "tool", event.tool)
        changes: Changes = called(task, event.model_copy(update={"tool": tool}), record)
        return changes

    replace_fold(patch, ev.ToolCalled, lax)


def send_unresolved_references(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(call_rules, "resolve", lambda value, *_, **_bounds: value)


def begin_without_results(patch: pytest.MonkeyPatch) -> None:
    """`next_commands` begins every pending step, and the rules and folds allow it."""
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
    remove_checks(calls, "_check_ready")(patch)
    remove_checks(call_rules, "_check_turn")(patch)


def continue_after_cancel(patch: pytest.MonkeyPatch) -> None:
    """`next_commands`, the rules and the folds ignore the cancellation."""
    wanted = commands.next_commands

    def ignore_cancel(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        requested = task.cancel_requested and task.status is not TaskStatus.EXECUTING
        return wanted(replace(task, cancel_requested=requested), in_flight)

    patch.setattr(commands, "next_commands", ignore_cancel)
    permit_calls_after_cancel(patch)
    for module in (calls, plans, tasks):
        patch.setattr(module, "check_not_cancelled", lambda *_: None)


def send_after_cancel(patch: pytest.MonkeyPatch) -> None:
    """The run does not check for a cancellation before it sends."""

    def send(self: run.Run, work: run.Work) -> None:
        if isinstance(work, ev.ToolCalled):
            self.store.world.receive(work)
        self.in_progress.append(work)

    patch.setattr(run.Run, "send", send)


def complete_unfinished_tasks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tasks, "_WELL_ENDED", frozenset(StepStatus))


def complete_without_result(patch: pytest.MonkeyPatch) -> None:
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
    replace_fold(patch, ev.StepCompleted, lax)


def permit_calls_after_cancel(patch: pytest.MonkeyPatch) -> None:
    check = call_rules._check_task  # noqa: SLF001 - the rule to remove
    patch.setattr(call_rules, "_check_task", lambda task: check(replace(task, cancel_requested=False)))


def permit_unlisted_tools(patch: pytest.MonkeyPatch) -> None:
    """An agent step may call every pinned tool, whatever its model asks for."""
    planned = call_rules._find_step  # noqa: SLF001 - the rule to remove

    def lax(task: Task, proposal: Proposal) -> Any:
        step = next((step for step in (task.contract.steps if task.contract else ()) if step.id == proposal.step_id), 0)
        known = f"{proposal.server}/{proposal.tool}" in task.definitions
        return step if isinstance(step, AgentStep) and known else planned(task, proposal)

    patch.setattr(call_rules, "_find_step", lax)
    patch.setattr(call_rules, "_check_uses", lambda _step, state, _: require_pending_call(state))


def require_pending_call(state: StepState) -> None:
    if state.pending is None:
        raise CallRefusedError("used_up", "its model asks for nothing")


def permit_any_number_of_calls(patch: pytest.MonkeyPatch) -> None:
    """The rules do not count the calls of an agent."""
    check = call_rules._check_uses  # noqa: SLF001 - the rule to remove
    patch.setattr(call_rules, "_check_uses", lambda step, state, it: check(step, replace(state, sent=()), it))


def permit_settled_calls(patch: pytest.MonkeyPatch) -> None:
    """The rules do not compare a call with the one that the model asks for, so settled calls may be repeated."""
    patch.setattr(call_rules, "_check_uses", lambda *_: None)


def permit_other_arguments(patch: pytest.MonkeyPatch) -> None:
    """The rules do not compare proposed arguments with the expected ones."""
    judge = call_rules.judge

    def lax(task: Task, proposal: Proposal, *more: Any) -> call_rules.PermittedCall:
        return judge(task, replace(proposal, arguments=None), *more)

    patch.setattr(call_rules, "judge", lax)


def accept_every_agent_call(patch: pytest.MonkeyPatch) -> None:
    """The fold checks neither what the model asks for nor what the step lists."""

    def reason(terms: contract.Contract, step: ToolStep | AgentStep, key: str, *, by_person: bool) -> str | None:
        return reason_to_ask(terms, step, key, by_person=by_person) if key in terms.policy else None

    patch.setattr(calls, "_check_proposed", lambda *_: None)
    patch.setattr(calls, "reason_to_ask", reason)


def count_no_calls(patch: pytest.MonkeyPatch) -> None:
    """Neither the rules nor the fold count the calls of an agent."""
    permit_any_number_of_calls(patch)
    check = calls._check_proposed  # noqa: SLF001 - the rule to remove
    lax = lambda task, event, step, state: check(task, event, step, replace(state, sent=()))  # noqa: E731 - as above
    patch.setattr(calls, "_check_proposed", lax)


def accept_every_turn(patch: pytest.MonkeyPatch) -> None:
    """An answer counts as the next turn, whatever its number."""
    answered = FOLDS[ev.ModelAnswered]

    def lax(task: Task, event: ev.ModelAnswered, record: ev.EventRecord) -> Changes:
        turn = len(task.steps[event.step_id].turns) + 1
        changes: Changes = answered(task, event.model_copy(update={"turn": turn}), record)
        return changes

    replace_fold(patch, ev.ModelAnswered, lax)


def complete_agents_early(patch: pytest.MonkeyPatch) -> None:
    """An agent step may complete with any answer of its model."""
    completed = FOLDS[ev.StepCompleted]

    def lax(task: Task, event: ev.StepCompleted, record: ev.EventRecord) -> Changes:
        state = task.steps.get(event.step_id)
        if state is not None and state.status is StepStatus.RUNNING and state.turns and not state.call:
            done = replace(state, status=StepStatus.COMPLETED, result=state.turns[-1].answer or StoredResult(text="?"))
            return {"steps": {**task.steps, event.step_id: done}}
        changes: Changes = completed(task, event, record)
        return changes

    replace_fold(patch, ev.StepCompleted, lax)


def run_repinned_plans(patch: pytest.MonkeyPatch) -> None:
    """A repinned plan runs under the approval of the previous revision."""
    repinned = FOLDS[ev.PlanRepinned]

    def lax(task: Task, event: ev.PlanRepinned, record: ev.EventRecord) -> Changes:
        changes: Changes = repinned(task, event, record)
        return {**changes, "status": task.status}

    replace_fold(patch, ev.PlanRepinned, lax)


def answer_nothing(patch: pytest.MonkeyPatch) -> None:
    """An answer counts whether or not a server asks."""
    patch.setattr(questions, "_expect_question", lambda task, event: task.steps[event.step_id])


def make_reckless_machine() -> type[machine.LifeOfATask]:
    """Return the machine with more frequent misbehaviour."""
    misbehave = machine.LifeOfATask.something_misbehaves
    # No rule that is removed needs a question of a server, and its answers would only make the search longer.
    calm = {"a_server_asks": None, "a_server_asks_again": None, "answer_a_question": None}
    return machine.make_machine(may_misbehave=True, wrong_again=misbehave, wrong_once_more=misbehave, **calm)


S = TaskStatus
# Each rule with the guarantees that may be found broken first: calling a tool too often breaks both G2 and G5.
REMOVED: Mapping[str, tuple[str, Removal]] = {
    "only idempotent calls are repeated": ("G2", repeat_every_call),
    "only the newest claim writes": ("G2", accept_every_epoch),
    "only an open question is answered": ("G4", answer_nothing),
    "the intent is written first": ("G2", send_before_writing),
    "a decision names the current plan": ("G4", remove_checks(plans, "_check_current_plan")),
    "only what awaits approval is approved": ("G4", allow_events({ev.PlanApproved}, {S.EXECUTING, S.NEEDS_ATTENTION})),
    "an approved plan is not edited": ("G4", allow_events({ev.PlanEdited}, {S.APPROVED, S.EXECUTING})),
    "a plan is made anew before its first step": ("G4", remove_checks(plans, "_check_not_begun")),
    "a plan that is made anew awaits approval": ("G4", run_repinned_plans),
    "a concrete call needs an answer": ("G4", call_without_approval),
    "what comes from outside is asked for": ("G4", trust_outside_data),
    "only a person approves a call with the plan": ("G4", treat_policy_as_person),
    "what would leave is asked for": ("G4", let_data_leave),
    "what a model sends outside is asked for": ("G4", let_models_send_data),
    "nobody approves what they wrote": ("G4", approve_own_work),
    "nothing begins before approval": ("G4", allow_events({ev.StepStarted, ev.ToolCalled}, {S.AWAITING_APPROVAL})),
    "a step calls its own tool": ("G5 G2", accept_every_tool),
    "a step waits for its turn": ("G5", remove_checks(calls, "_check_ready")),
    "a step waits for what it needs": ("G5", begin_without_results),
    "references are resolved": ("G5", send_unresolved_references),
    "nothing follows the end": ("G7", allow_events({ev.TaskCancelRequested}, set(S))),
    "nothing begins after a cancel": ("G7", continue_after_cancel),
    "nothing is sent after a cancel": ("G7", send_after_cancel),
    "only what has ended well is completed": ("G7", complete_unfinished_tasks),
    "a step is completed with its result": ("G7", complete_without_result),
    # For agent steps and proposed calls, the rules and the folds are two lines of defence; each is tested by itself.
    "rules: a call is of a tool that the step lists": ("G5 G2", permit_unlisted_tools),
    "rules: a call is the one that the model asks for": ("G5", permit_settled_calls),
    "rules: a tool is called as often as the plan says": ("G5 G2", permit_any_number_of_calls),
    "rules: arguments are those that they should be": ("G5", permit_other_arguments),
    "rules: a person is asked": ("G4", remove_checks(call_rules, "_reason_to_ask")),
    "rules: nothing is permitted after a cancel": ("G7", permit_calls_after_cancel),
    "folds: a call is the one that the model asks for": ("G5", accept_every_agent_call),
    "folds: a concrete call needs an answer": ("G4 G5", remove_checks(calls, "_check_granted")),
    "folds: nobody approves what they wrote": ("G4", remove_checks(plans, "check_approver")),
    "folds: a turn is recorded once": ("G2", accept_every_turn),
    "folds: an agent is done when its model says so": ("G7", complete_agents_early),
    "both: a tool is called as often as the plan says": ("G5 G2", count_no_calls),
}


CALM = frozenset({"nothing is sent after a cancel"})
"""Rules whose removal is found sooner with less misbehaviour."""


EVERYDAY = frozenset(
    {
        "only idempotent calls are repeated",
        "nothing follows the end",
    }
)
"""Two rules whose removal is found at once. The others take seconds, so only CI tests them."""


@pytest.mark.slow
def test_with_every_rule_in_place_nothing_is_missed() -> None:
    run_state_machine_as_test(make_reckless_machine(), settings=settings(SEARCH, max_examples=50))


@pytest.mark.parametrize(
    "rule", [rule if rule in EVERYDAY else pytest.param(rule, marks=pytest.mark.slow) for rule in REMOVED]
)
def test_a_rule_that_is_removed_is_missed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guarantees, remove = REMOVED[rule]
    # No rule that is removed needs an outage either.
    monkeypatch.setitem(run.RESULTS, "busy", run.RESULTS["error"])
    remove(monkeypatch)
    with pytest.raises(AssertionError) as broken:
        run_state_machine_as_test(machine.make_machine() if rule in CALM else make_reckless_machine(), settings=SEARCH)
    found = set(re.findall(r"G\d", str(broken.value)))
    assert found
    assert found <= set(guarantees.split())
