"""The state machine: people, any number of runs, crashes and one journal. Every step is followed by all checks."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, ClassVar, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_runtime.config import LimitSettings
from agent_runtime.domain import commands
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Answer, Approve, ApproveCall, Cancel, DenyCall, Edit, Reject, Resolve, Revise
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.contract import Budget
from agent_runtime.domain.decisions import Judged, events_of, expect_editable
from agent_runtime.domain.errors import (
    CallNotFoundError,
    ConflictError,
    DecisionRefusedError,
    InvalidInputError,
    QuestionNotFoundError,
    ScopeMissingError,
)
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import WAITING
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import evolve
from unit.domain.life.misbehaviour import Misbehaviour
from unit.domain.life.model import ANSWERS
from unit.domain.life.plans import BUDGETS, SHAPES, Shape, draft_contract
from unit.domain.life.run import INSTANTS, RESULTS, Run, repin_plan
from unit.domain.life.store import CrashError, Store
from unit.domain.life.world import World

FEW_INSTANTS = st.lists(st.sampled_from([*INSTANTS, "more", "good", "big"]), max_size=4)
LONG_INSTANTS = st.tuples(
    st.sampled_from([*RESULTS, *ANSWERS, "big"]), st.sampled_from(["good", "each", "error", "lost"])
).map(lambda answers: ["more", answers[0], "more", "good", "more", answers[1]] * 5)
MISBEHAVIOURS = ("a service", "a run", "a run that strays", "a run at its end", "others")

REFUSALS = (CallNotFoundError, DecisionRefusedError, InvalidInputError, QuestionNotFoundError, ScopeMissingError)

SAYINGS: list[tuple[ev.AnswerAction, dict[str, Any] | None]] = [
    ("accept", {"n": 1}),
    ("decline", None),
    ("cancel", None),
    ("accept", {"n": "one"}),
    ("cancel", None),
    ("decline", None),
    ("accept", {"n": 2}),
]
"""The answers of a person to a server: an action, and valid, invalid or no content."""

CALLERS = st.sampled_from([ANYBODY, Caller("bob", "default", frozenset({"approve"}), "key")])
"""A caller with all scopes, and one who may only approve. The latter may have submitted the task or edited the plan."""

SUBMISSIONS: dict[str, Any] = {
    "shapes": SHAPES,
    "budget": BUDGETS,
    "max_parallel": st.integers(1, 3),
    "caller": CALLERS,
    "covers_data": st.sampled_from([False, False, True]),
    "approval": st.sampled_from(["manual", "manual", "auto"]),
    "approved": st.sampled_from([True, True, False]),
}


class LifeOfATask(Misbehaviour, RuleBasedStateMachine):
    """The lives of tasks, one after the other.

    Totals over all examples: `steps` counts applied rules, `events` the written events by type, and `occurrences` other
    situations that the test must reach.
    """

    steps: ClassVar[int] = 0
    events: ClassVar[Counter[str]] = Counter()
    occurrences: ClassVar[Counter[str]] = Counter()

    @initialize(**SUBMISSIONS)
    def begin(self, **submission: Any) -> None:
        self.submit(**submission)
        type(self).steps -= 1  # the invariants count this, but it is not a step

    def submit(
        self,
        shapes: tuple[Shape, ...],
        budget: Budget,
        max_parallel: int,
        caller: Caller,
        approval: Literal["manual", "auto"],
        *,
        covers_data: bool,
        approved: bool,
    ) -> None:
        """Start a new task.

        `approved`: approve its plan at once, so that more happens to it. `covers_data`: the approval of a plan covers
        calls that need approval because of their data.
        """
        self.draft_contract, self.max_parallel = partial(draft_contract, shapes, budget, covers_data), max_parallel
        self.world = World()
        self.store = Store(self.world)
        self.runs: list[Run] = []
        self.call_numbers = count(1)
        self.recent_states: list[Task] = []
        self.end_state: Task | None = None
        self.steps_since_end = 0
        self.replayed = Task("t")
        limits = self.draft_contract(1).limits
        self.store.append(self.task, ev.TaskSubmitted(prompt="p", approval=approval, limits=limits, actor=caller.name))
        if approved:
            self.advance(self.claim(self.task), ["more", "more"])
            self.decide(Approve(digest=self.task.plan_digest))
        self.note("lives")

    @classmethod
    def note(cls, what: str) -> None:
        cls.occurrences[what] += 1

    # Runs. A runner claims a task when the older runs count as dead. They may still be active, so they stay in `runs`.

    def claim(self, seen: Task) -> Run:
        epoch = seen.epoch + 1
        task = self.store.append(seen, ev.TaskClaimed(runner="r", epoch=epoch), epoch=epoch)
        self.runs.append(Run(self.store, self.draft_contract, self.call_numbers, task, self.max_parallel))
        return self.runs[-1]

    def advance(self, run: Run, instants: list[str]) -> None:
        for instant in instants:
            try:
                goes_on = run.step(instant)
            except CrashError:
                goes_on = False
            if len(run.in_progress) > 1:
                self.note("parallel calls")
            if not goes_on:
                self.runs.remove(run)
                return

    @precondition(lambda self: self.can_continue and len(self.runs) < 6)
    @rule(instants=FEW_INSTANTS, rival=st.sampled_from([False, False, True]))
    def a_runner_claims_the_task(self, instants: list[str], *, rival: bool) -> None:
        seen = self.task
        self.advance(self.claim(seen), instants)
        if not rival:
            return
        try:
            self.claim(seen)
        except ConflictError:
            self.note("a second claim is refused")
        else:
            self.world.report("G2", "two runs got the same claim")

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), instants=FEW_INSTANTS | FEW_INSTANTS | LONG_INSTANTS)
    def a_run_proceeds(self, data: st.DataObject, instants: list[str]) -> None:
        """Advance the newest run, or a superseded one that does not know it."""
        run = data.draw(st.sampled_from(self.runs))
        self.note("a superseded run continues" if run.epoch < self.task.epoch else "a run continues")
        if run.in_progress and run.epoch < self.task.epoch:
            self.note("a superseded run waits for an answer")
        self.advance(run, instants)

    # A rule with two names is chosen twice as often.
    a_run_proceeds_again = a_run_proceeds
    a_runner_claims_the_task_again = a_runner_claims_the_task

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), when=st.sampled_from(["now", "before", "after"]), instants=FEW_INSTANTS)
    def a_run_crashes(self, data: st.DataObject, when: Literal["now", "before", "after"], instants: list[str]) -> None:
        """Crash a run: between two instants, or just before or after its next write."""
        run = data.draw(st.sampled_from(self.runs))
        self.note(f"a crash {when}")
        if when == "now":
            self.runs.remove(run)
            return
        self.store.crash_point = when
        self.advance(run, instants)
        self.store.crash_point = None

    # People, through the service. They may decide on an old state; the service then checks the current one, or refuses.

    def decide(self, decision: Judged, back: int = 0, caller: Caller = ANYBODY) -> bool:
        return self.write_decision(
            back, lambda task: events_of(task, decision, caller, LimitSettings(), require_digest=False)
        )

    def write_decision(self, back: int, events: Callable[[Task], Sequence[ev.Event]]) -> bool:
        """Write a decision made on an earlier state; return whether it was acknowledged.

        What the service accepts, the journal never refuses.
        """
        task = self.read_earlier(back)
        while True:
            before = self.task
            try:
                self.store.append(task, *events(task))
            except ConflictError:
                self.note("a decision on an outdated state")
                task = self.task
            except REFUSALS as refusal:
                if isinstance(refusal, ScopeMissingError):
                    self.note("an author tried to approve their own work")
                assert self.task is before
                if task is before:
                    return False
                task = before
            else:
                return True

    @precondition(lambda self: self.may_decide)
    @rule(back=st.integers(0, 4), of=st.integers(0, 4), n=st.sampled_from([1, 1, 3]), caller=CALLERS)
    def approve(self, back: int, of: int, n: int, caller: Caller) -> None:
        """Approve the current plan or an earlier one: once, or several people at the same time."""
        decision = Approve(digest=self.read_earlier(of).plan_digest)
        won = sum(self.decide(decision, back, caller) for _ in range(n))
        assert won <= 1, "two approvals were acknowledged"

    @precondition(lambda self: self.may_decide)
    @rule(
        back=st.integers(0, 2),
        how=st.sampled_from(["revise", "revise", "reject"]),
        then=st.sampled_from([None, None, "more", "error"]),
        caller=CALLERS,
    )
    def send_back(self, back: int, how: str, then: str | None, caller: Caller) -> None:
        """Reject a plan, or ask for another, which a runner may plan at once, or fail to plan."""
        decision = Revise(feedback="f") if how == "revise" else Reject()
        if self.decide(decision, back, caller) and then and self.can_continue:
            self.advance(self.claim(self.task), [then])

    @property
    def may_decide(self) -> bool:
        """Return whether a plan awaits approval, now or in a state that somebody has read."""
        return any(task.status == "awaiting_approval" for task in (*self.recent_states, self.task))

    @precondition(lambda self: self.may_decide)
    @rule(back=st.integers(0, 2))
    def edit(self, back: int) -> None:
        decision = Edit(
            plan=Plan.model_construct(steps=()), digests=frozenset({self.read_earlier(back).plan_digest or ""})
        )

        def edit_events(task: Task) -> list[ev.Event]:
            expect_editable(task, decision, ANYBODY, LimitSettings())
            revision = task.plan_revision + 1
            contract = self.draft_contract(revision)
            return [ev.PlanEdited(revision=revision, digest=contract.digest, contract=contract, definitions={})]

        self.write_decision(back, edit_events)

    @precondition(lambda self: self.may_decide)
    @rule(back=st.integers(0, 2), named=st.sampled_from([True, True, False]))
    def approve_an_outdated_plan(self, back: int, *, named: bool) -> None:
        """Approve a plan whose servers have changed: the service makes a new revision, or fails the task."""

        def outdated_events(task: Task) -> list[ev.Event]:
            events_of(task, Approve(digest=task.plan_digest), ANYBODY, LimitSettings(), require_digest=False)
            return [repin_plan(task) if named else ev.TaskFailed(code="definition_changed", message="m")]

        self.note("an approval of an outdated plan")
        self.write_decision(back, outdated_events)

    @precondition(lambda self: self.task.plan_revision > 1 and self.task.status == "awaiting_approval")
    @rule()
    def wait_until_it_expires(self) -> None:
        self.write_decision(
            0, lambda task: [ev.TaskExpired(revision=task.plan_revision, digest=task.plan_digest or "")]
        )

    @precondition(lambda self: self.task.version > 6 and len(self.world.received) != 1)
    @rule(back=st.integers(0, 3), stray=st.sampled_from([False, False, True]))
    def cancel(self, back: int, *, stray: bool) -> None:
        def cancel_events(task: Task) -> list[ev.Event]:
            events = events_of(task, Cancel(), ANYBODY, LimitSettings(), require_digest=False)
            if not events:
                raise DecisionRefusedError("It is being cancelled already.", task.status)
            return events

        if self.write_decision(back, cancel_events):
            self.store.cancel_written = True
            if stray:
                self.send_stray_proposals()

    @precondition(lambda self: self.task.unknown_steps)
    @rule(
        data=st.data(),
        how=st.sampled_from(["done", "retry", "retry", "skip", "fail"]),
        back=st.integers(0, 2),
        caller=CALLERS,
    )
    def resolve(self, data: st.DataObject, how: ev.Resolution, back: int, caller: Caller) -> None:
        step_id = data.draw(st.sampled_from(self.task.unknown_steps))
        call = self.task.steps[step_id].call
        assert call
        output = data.draw(st.sampled_from([None, {"n": 7}])) if how == "done" else None
        self.decide(Resolve(step_id=step_id, call_id=call.call_id, resolution=how, output=output), back, caller)

    @precondition(lambda self: self.asking_steps)
    @rule(
        data=st.data(),
        kind=st.sampled_from([ApproveCall, ApproveCall, DenyCall]),
        back=st.integers(0, 2),
        caller=CALLERS,
    )
    def decide_on_a_call(
        self, data: st.DataObject, kind: type[ApproveCall | DenyCall], back: int, caller: Caller
    ) -> None:
        asked = self.task.steps[data.draw(st.sampled_from(self.asking_steps))].asked
        assert asked
        comment = data.draw(st.sampled_from([None, "not so"]))
        decision = kind(call_id=asked.call_id, arguments_digest=asked.arguments_digest, comment=comment)
        if isinstance(decision, ApproveCall) and data.draw(st.booleans()):
            decision = decision.model_copy(update={"edited_arguments": {"n": data.draw(st.sampled_from([8, 8.0]))}})
        if self.decide(decision, back, caller) and isinstance(decision, ApproveCall) and decision.edited_arguments:
            self.note("an edited call")

    @precondition(lambda self: any(run.in_progress for run in self.runs) and not self.task.questions)
    @rule(
        data=st.data(),
        then=st.sampled_from([[], [], [], ["silence"], ["good", "more"]]),
        sayings=st.lists(st.sampled_from(SAYINGS), min_size=1, max_size=4),
        caller=CALLERS,
    )
    def a_server_asks(
        self,
        data: st.DataObject,
        then: list[str],
        sayings: list[tuple[ev.AnswerAction, dict[str, Any] | None]],
        caller: Caller,
    ) -> None:
        """Have a server ask questions in an open call, and a person answer each at once, or the last one too late."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.in_progress]))
        for number, saying in enumerate(sayings, 1):
            if run not in self.runs:
                return
            self.advance(run, ["asks", "asks", *(then if number == len(sayings) else ())])
            if self.task.questions:
                self.give_answer(data, saying, 0, caller)

    a_server_asks_again = a_server_asks

    @precondition(lambda self: self.task.questions)
    @rule(data=st.data(), saying=st.sampled_from(SAYINGS), back=st.integers(0, 2), caller=CALLERS)
    def answer_a_question(
        self,
        data: st.DataObject,
        saying: tuple[ev.AnswerAction, dict[str, Any] | None],
        back: int,
        caller: Caller,
    ) -> None:
        self.give_answer(data, saying, back, caller)

    def give_answer(
        self,
        data: st.DataObject,
        saying: tuple[ev.AnswerAction, dict[str, Any] | None],
        back: int,
        caller: Caller,
    ) -> None:
        """Answer a question of a server with valid or invalid content, or decline or dismiss it."""
        asked = self.task.questions[data.draw(st.sampled_from([*self.task.questions]))]
        action, content = saying
        if self.decide(Answer(question_id=asked.question_id, action=action, content=content), back, caller):
            self.note(f"a question: {action}")

    @property
    def asking_steps(self) -> list[str]:
        return [name for name, step in self.task.steps.items() if step.status is StepStatus.ASKING]

    @precondition(lambda self: self.task.terminal and self.end_state)
    @rule(**SUBMISSIONS)
    def submit_another(self, **submission: Any) -> None:
        self.finish()
        self.submit(**submission)

    @precondition(lambda self: self.task.plan_revision > 0 and self.task.epoch > 0 and self.may_misbehave)
    @rule(data=st.data(), who=st.sampled_from(MISBEHAVIOURS))
    def something_misbehaves(self, data: st.DataObject, who: str) -> None:
        self.note(f"misbehaviour of {who}")
        match who:
            case "a service":
                self.misbehave_as_service(data)
            case "a run":
                self.misbehave_as_run(data)
            case "a run that strays":
                self.send_stray_proposals()
            case "a run at its end":
                self.end_task_unasked()
            case _:
                self.write_as_others()

    @property
    def may_misbehave(self) -> bool:
        """Return whether misbehaviour is allowed now. If it always were, it would end most lives early."""
        return self.steps_since_end == 1 if self.task.terminal else self.task.version % 3 == 0

    # What must always hold. Hypothesis checks invariants in the order of their names.

    def check_breaches(self, guarantee: str) -> None:
        assert not self.world.breaches or not self.world.breaches[0].startswith(guarantee), self.world.breaches

    @invariant()
    def g2_no_call_is_sent_twice_for_one_approved_use(self) -> None:
        self.check_breaches("G2")

    @invariant()
    def g4_nothing_runs_but_what_was_approved(self) -> None:
        self.check_breaches("G4")

    @invariant()
    def g5_nothing_is_sent_but_the_current_steps_of_the_plan(self) -> None:
        self.check_breaches("G5")

    @invariant()
    def g7_the_end_is_the_end(self) -> None:
        self.check_breaches("G7")
        if self.end_state and self.task != self.end_state:
            self.world.report("G7", f"{self.end_state.status} became {self.task.status}")
            self.check_breaches("G7")
        if self.task.status == "completed":
            kept = {name: step.result.model_dump() for name, step in self.task.steps.items() if step.result}
            for name, step in self.world.steps.items():
                said = {key: kept.get(name, {}).get(key) for key in ("text", "output", "is_error")}
                same = step.result and said == {key: step.result[key] for key in said}
                self.world.check("G7", step.status != "completed" or same, f"the result of {name} is another")
            self.check_breaches("G7")

    @invariant()
    def the_journal_is_the_state(self) -> None:
        for record in self.store.records[self.replayed.version :]:
            back = ev.restore_record(record.task_id, record.seq, record.epoch, record.at, record.type, record.data)
            self.replayed = evolve(self.replayed, back)
        assert self.replayed == self.task
        assert self.replayed.version == len(self.store.records)

    @invariant()
    def the_budget_holds(self) -> None:
        calls = self.task.limits.budget.tool_calls
        assert calls is None or len(self.world.intents) <= calls

    @invariant()
    def there_is_always_a_next_command(self) -> None:
        """G3: a task that has not ended and waits for nobody has a next command."""
        lost = self.task.cancel_requested or self.task.questions
        waiting = self.task.status in WAITING and not lost
        assert self.can_continue is not (self.task.terminal or waiting)

    @property
    def can_continue(self) -> bool:
        return bool(commands.next_commands(self.task))

    @invariant()
    def track_the_state(self) -> None:
        type(self).steps += 1
        self.recent_states = [*self.recent_states[-3:], self.task]
        self.end_state = self.end_state or (self.task if self.task.terminal else None)
        self.steps_since_end += self.end_state is not None

    def finish(self) -> None:
        """G3: from any state, two runs without accidents bring the task to its end or to a question."""
        for _ in range(2):
            if not self.can_continue:
                break
            run = self.claim(self.task)
            with suppress(CrashError):
                for _ in range(100):
                    if not run.step("good"):
                        break
        assert self.world.breaches or self.task.terminal or self.task.status in WAITING
        assert self.world.breaches or self.task.terminal or not self.task.cancel_requested
        self.occurrences["a late answer"] += self.store.late_answers
        self.events.update(record.type for record in self.store.records)
        for record in self.store.records:
            if isinstance(record.event, ev.ToolCalled) and record.event.attempt > 1:
                self.note("a repeated call")
            elif isinstance(record.event, ev.StepResolved):
                self.note(f"resolved: {record.event.resolution}")
        for guarantee in ("G2", "G4", "G5", "G7"):
            self.check_breaches(guarantee)

    def teardown(self) -> None:
        if hasattr(self, "store") and not self.world.breaches:
            self.finish()


def make_machine(**more: object) -> type[LifeOfATask]:
    """Return the machine with its own counters."""
    return type("LifeOfATask", (LifeOfATask,), {"steps": 0, "events": Counter(), "occurrences": Counter(), **more})
