"""Each rule behind G2, G4, G5 and G7 is taken out in turn, and the life of a task must then break that guarantee."""

import os
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agent_runtime.domain import commands, contract, folds, transitions
from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import exceeded_budget
from agent_runtime.domain.task import StepStatus, Task, TaskStatus
from unit.domain.life import machine, plans, run

# These judge the judge, not the core: under mutation they would notice what is no fault.
pytestmark = pytest.mark.skipif("MUTANT_UNDER_TEST" in os.environ, reason="the rules are changed already")

SEARCH = settings(
    max_examples=1000,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

Removal = Callable[[pytest.MonkeyPatch], None]

ALLOWED: dict[type[ev.Event], Any] = transitions.ALLOWED  # for the type of `setitem`
FOLDS: dict[type[ev.Event], Any] = folds.FOLDS


def allowing(kinds: set[type[ev.Event]], statuses: set[TaskStatus]) -> Removal:
    """The table without its word on these events in these statuses."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            patch.setitem(ALLOWED, kind, ALLOWED[kind] | statuses)

    return remove


def without(name: str) -> Removal:
    """The folds without this check of theirs."""
    return lambda patch: patch.setattr(folds, name, lambda *_: None)


def put(patch: pytest.MonkeyPatch, kind: type[ev.Event], fold: Callable[..., folds.Changes]) -> None:
    """Another fold of this event."""
    patch.setitem(FOLDS, kind, fold)


def repeating_everything(patch: pytest.MonkeyPatch) -> None:
    for module in (folds, commands, run):
        patch.setattr(module, "may_repeat", lambda *_: True)


def taking_every_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "_check_epoch", lambda *_: None)


def sending_before_writing(patch: pytest.MonkeyPatch) -> None:
    """The intents reach the servers before they are in the journal."""
    decide = run.Run.decide

    def hasty(self: run.Run, *, changed: bool) -> list[ev.ToolCalled]:
        begun = decide(self, changed=changed)
        for call in begun:
            self.store.world.receive(call)
        return begun

    patch.setattr(run.Run, "decide", hasty)


def calling_without_asking(patch: pytest.MonkeyPatch) -> None:
    """The run does not ask, and the fold lets it call."""
    patch.setattr(run.Run, "must_ask", lambda *_: False)
    patch.setattr(folds, "_granted", lambda *_: None)


def trusting_the_world(patch: pytest.MonkeyPatch) -> None:
    """No contract says that a concrete call is to be asked for."""
    patch.setattr(contract, "reasons_to_ask", lambda *_: {})
    patch.setattr(machine, "plan", plans.plan.__wrapped__)  # not those that are kept


def taking_every_tool(patch: pytest.MonkeyPatch) -> None:
    called = folds.FOLDS[ev.ToolCalled]

    def lax(task: Task, event: ev.ToolCalled, record: ev.EventRecord) -> folds.Changes:
        step = task.plan_step(event.step_id)
        tool = getattr(step, "tool", "")
        return called(task, event.model_copy(update={"tool": tool}), record)

    put(patch, ev.ToolCalled, lax)


def sending_references_as_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run, "resolve", lambda value, *_: value)


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
    patch.setattr(folds, "_check_turn", lambda *_: None)


def going_on_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """`next_commands` and the fold are deaf to it."""
    wanted = commands.next_commands

    def deaf(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        heard = task.cancel_requested and task.status is not TaskStatus.EXECUTING
        return wanted(replace(task, cancel_requested=heard), in_flight)

    patch.setattr(commands, "next_commands", deaf)
    patch.setattr(folds, "_no_cancel", lambda *_: None)


def sending_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """The run does not look once more before it sends."""

    def send(self: run.Run, call: ev.ToolCalled) -> None:
        self.store.world.receive(call)
        self.waiting.append(call)

    patch.setattr(run.Run, "send", send)


def completing_what_has_not_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folds, "_WELL_ENDED", frozenset(StepStatus))


def completing_without_a_result(patch: pytest.MonkeyPatch) -> None:
    def lax(task: Task, event: ev.StepCompleted, _: ev.EventRecord) -> folds.Changes:
        state = task.steps[event.step_id]
        result = state.call.result if state.call else None
        done = replace(state, status=StepStatus.COMPLETED, result=result)
        return {"steps": {**task.steps, event.step_id: done}}

    def hasty(task: Task, in_flight: AbstractSet[str] = frozenset()) -> tuple[commands.Command, ...]:
        if task.status is TaskStatus.EXECUTING and not task.cancel_requested:
            lost = [name for name in task.open_calls if name not in in_flight]
            if lost:
                return (commands.Record((ev.StepCompleted(step_id=lost[0]),)),)
        return wanted(task, in_flight)

    wanted = commands.next_commands
    patch.setattr(commands, "next_commands", hasty)
    put(patch, ev.StepCompleted, lax)


def reckless() -> type[machine.LifeOfATask]:
    """The machine, in which somebody loses their mind more often."""
    wrong = machine.LifeOfATask.somebody_has_lost_their_mind
    return machine.lives(may_go_wrong=True, wrong_again=wrong, wrong_once_more=wrong)


S = TaskStatus
REMOVED: Mapping[str, tuple[str, Removal]] = {
    "only idempotent calls are repeated": ("G2", repeating_everything),
    "only the newest claim writes": ("G2", taking_every_epoch),
    "the intent is written first": ("G2", sending_before_writing),
    "a decision names the current plan": ("G4", without("_of_current_plan")),
    "only what awaits approval is approved": ("G4", allowing({ev.PlanApproved}, {S.EXECUTING, S.NEEDS_ATTENTION})),
    "an approved plan is not edited": ("G4", allowing({ev.PlanEdited}, {S.APPROVED, S.EXECUTING})),
    "a concrete call needs an answer": ("G4", calling_without_asking),
    "what comes from outside is asked for": ("G4", trusting_the_world),
    "nothing begins before approval": ("G4", allowing({ev.StepStarted, ev.ToolCalled}, {S.AWAITING_APPROVAL})),
    "a step calls its own tool": ("G5", taking_every_tool),
    "a step waits for its turn": ("G5", without("_check_turn")),
    "a step waits for what it needs": ("G5", not_waiting_for_results),
    "references are resolved": ("G5", sending_references_as_they_are),
    "nothing follows the end": ("G7", allowing({ev.TaskCancelRequested}, set(S))),
    "nothing begins after a cancel": ("G7", going_on_after_a_cancel),
    "nothing is sent after a cancel": ("G7", sending_after_a_cancel),
    "only what has ended well is completed": ("G7", completing_what_has_not_ended),
    "a step is completed with its result": ("G7", completing_without_a_result),
}


CALM = frozenset({"nothing is sent after a cancel"})
"""Rules that are missed sooner where nobody loses their mind as often."""


def test_with_every_rule_in_place_nothing_is_missed() -> None:
    run_state_machine_as_test(reckless(), settings=settings(SEARCH, max_examples=50))


@pytest.mark.parametrize("rule", REMOVED)
def test_a_rule_that_is_removed_is_missed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guarantee, remove = REMOVED[rule]
    remove(monkeypatch)
    with pytest.raises(AssertionError) as broken:
        run_state_machine_as_test(machine.lives() if rule in CALM else reckless(), settings=SEARCH)
    assert set(re.findall(r"G\d", str(broken.value))) == {guarantee}
