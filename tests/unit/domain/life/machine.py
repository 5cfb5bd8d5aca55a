"""The machine: people, any number of runs, accidents, and one journal; after every step the judge is asked."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, ClassVar, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_runtime.config import ApprovalSettings, LimitSettings
from agent_runtime.domain import commands
from agent_runtime.domain import events as ev
from agent_runtime.domain.approval import Answer, Approve, ApproveCall, Cancel, DenyCall, Edit, Reject, Resolve, Revise
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.contract import Budget
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
from agent_runtime.services.decisions import Judged, events_of, expect_editable
from unit.domain.life.mindless import Mindless
from unit.domain.life.model import ANSWERS
from unit.domain.life.plans import BUDGETS, SHAPES, Shape, plan
from unit.domain.life.run import INSTANTS, RESULTS, Run, repinned_plan
from unit.domain.life.store import CrashedError, Store
from unit.domain.life.world import World

SOME = st.lists(st.sampled_from([*INSTANTS, "more", "good", "big"]), max_size=4)
LONG = st.tuples(st.sampled_from([*RESULTS, *ANSWERS, "big"]), st.sampled_from(["good", "each", "error", "lost"])).map(
    lambda answers: ["more", answers[0], "more", "good", "more", answers[1]] * 5
)
MINDLESS = ("a service", "a run", "a run that strays", "a run at its end", "others")

REFUSALS = (CallNotFoundError, DecisionRefusedError, InvalidInputError, QuestionNotFoundError, ScopeMissingError)

CONTENTS: list[dict[str, Any] | None] = [None, {"n": 1}, None, {"n": 2}, {"n": "one"}]
"""What somebody answers to a server: nothing, what fits, or what does not."""

CALLERS = st.sampled_from([ANYBODY, Caller("bob", "default", frozenset({"approve"}), "key")])
"""Somebody who may do everything, and somebody who may only approve, whatever he did while he might do more."""

SUBMISSIONS: dict[str, Any] = {
    "shapes": SHAPES,
    "budget": BUDGETS,
    "most": st.integers(1, 3),
    "by": CALLERS,
    "covers": st.sampled_from([False, False, True]),
    "approval": st.sampled_from(["manual", "manual", "auto"]),
    "ahead": st.sampled_from([True, True, False]),
}


class LifeOfATask(Mindless, RuleBasedStateMachine):
    """Lives of tasks, one after the other.

    Over all examples, `steps` counts the rules that were followed, `events` what was written, and `accidents` what else
    is worth knowing to have happened.
    """

    steps: ClassVar[int] = 0
    events: ClassVar[Counter[str]] = Counter()
    accidents: ClassVar[Counter[str]] = Counter()

    @initialize(**SUBMISSIONS)
    def begin(self, **submission: Any) -> None:
        self.submitted(**submission)
        type(self).steps -= 1  # this one will be counted, and is none

    def submitted(
        self,
        shapes: tuple[Shape, ...],
        budget: Budget,
        most: int,
        by: Caller,
        approval: Literal["manual", "auto"],
        *,
        covers: bool,
        ahead: bool,
    ) -> None:
        """A new task; `ahead`: it is approved already, as most are that anything happens to.

        `covers`: approving a plan covers the questions that follow from data.
        """
        self.plans, self.most = partial(plan, shapes, budget, covers), most
        self.world = World()
        self.store = Store(self.world)
        self.runs: list[Run] = []
        self.ids = count(1)
        self.seen: list[Task] = []
        self.ended: Task | None = None
        self.since_end = 0
        self.restored = Task("t")
        limits = self.plans(1).limits
        self.store.append(self.task, ev.TaskSubmitted(prompt="p", approval=approval, limits=limits, actor=by.name))
        if ahead:
            self.go_on(self.claim(self.task), ["more", "more"])
            self.decide(Approve(digest=self.task.plan_digest))
        self.tell("lives")

    @classmethod
    def tell(cls, what: str) -> None:
        cls.accidents[what] += 1

    # Runs. A runner has proof that the older ones are dead. They may not know it: they stay in `runs`.

    def claim(self, seen: Task) -> Run:
        epoch = seen.epoch + 1
        task = self.store.append(seen, ev.TaskClaimed(runner="r", epoch=epoch), epoch=epoch)
        self.runs.append(Run(self.store, self.plans, self.ids, task, self.most))
        return self.runs[-1]

    def go_on(self, run: Run, instants: list[str]) -> None:
        for instant in instants:
            try:
                goes_on = run.step(instant)
            except CrashedError:
                goes_on = False
            if len(run.waiting) > 1:
                self.tell("calls side by side")
            if not goes_on:
                self.runs.remove(run)
                return

    @precondition(lambda self: self.goes_on and len(self.runs) < 6)
    @rule(instants=SOME, rival=st.sampled_from([False, False, True]))
    def a_runner_takes_the_task(self, instants: list[str], *, rival: bool) -> None:
        seen = self.task
        self.go_on(self.claim(seen), instants)
        if not rival:
            return
        try:
            self.claim(seen)
        except ConflictError:
            self.tell("a claim that came second")
        else:
            self.world.breach("G2", "two runs have the same claim")

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), instants=SOME | SOME | LONG)
    def a_run_goes_on(self, data: st.DataObject, instants: list[str]) -> None:
        """Any run: the newest, or one that was superseded and does not know."""
        run = data.draw(st.sampled_from(self.runs))
        self.tell("a zombie goes on" if run.epoch < self.task.epoch else "a run goes on")
        if run.waiting and run.epoch < self.task.epoch:
            self.tell("a zombie that waits for an answer")
        self.go_on(run, instants)

    a_run_goes_on_further = a_run_goes_on  # what has a second name happens twice as often
    a_runner_takes_the_task_anew = a_runner_takes_the_task

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), when=st.sampled_from(["now", "before", "after"]), instants=SOME)
    def a_run_dies(self, data: st.DataObject, when: Literal["now", "before", "after"], instants: list[str]) -> None:
        """Between two instants, or in the middle of a write: before it took place or after."""
        run = data.draw(st.sampled_from(self.runs))
        self.tell(f"a crash {when}")
        if when == "now":
            self.runs.remove(run)
            return
        self.store.fuse = when
        self.go_on(run, instants)
        self.store.fuse = None

    # People, through the service. They may be late: then the service decides on what is so now, or refuses.

    def decide(self, decision: Judged, back: int = 0, by: Caller = ANYBODY) -> bool:
        return self.written(back, lambda task: events_of(task, decision, by, LimitSettings(), ApprovalSettings()))

    def written(self, back: int, events: Callable[[Task], Sequence[ev.Event]]) -> bool:
        """Whether what was decided was acknowledged. What the service lets through, the journal never refuses."""
        task = self.old(back)
        while True:
            before = self.task
            try:
                self.store.append(task, *events(task))
            except ConflictError:
                self.tell("a decision on what was not so any more")
                task = self.task
            except REFUSALS as refusal:
                if isinstance(refusal, ScopeMissingError):
                    self.tell("somebody would approve what they wrote")
                assert self.task is before
                if task is before:
                    return False
                task = before
            else:
                return True

    @precondition(lambda self: self.awaited)
    @rule(back=st.integers(0, 4), of=st.integers(0, 4), n=st.sampled_from([1, 1, 3]), by=CALLERS)
    def approve(self, back: int, of: int, n: int, by: Caller) -> None:
        """The plan that is current or one that was; once, or several people at the same moment."""
        decision = Approve(digest=self.old(of).plan_digest)
        won = sum(self.decide(decision, back, by) for _ in range(n))
        assert won <= 1, "two approvals were acknowledged"

    @precondition(lambda self: self.awaited)
    @rule(back=st.integers(0, 2), how=st.sampled_from(["revise", "revise", "reject"]), by=CALLERS)
    def send_back(self, back: int, how: str, by: Caller) -> None:
        self.decide(Revise(feedback="f") if how == "revise" else Reject(), back, by)

    @property
    def awaited(self) -> bool:
        """Whether a plan awaits approval, or did on what somebody has read."""
        return any(task.status == "awaiting_approval" for task in (*self.seen, self.task))

    @precondition(lambda self: self.awaited)
    @rule(back=st.integers(0, 2))
    def edit(self, back: int) -> None:
        decision = Edit(plan=Plan.model_construct(steps=()), digests=frozenset({self.old(back).plan_digest or ""}))

        def edited(task: Task) -> list[ev.Event]:
            expect_editable(task, decision, ANYBODY, LimitSettings())
            revision = task.plan_revision + 1
            contract = self.plans(revision)
            return [ev.PlanEdited(revision=revision, digest=contract.digest, contract=contract, definitions={})]

        self.written(back, edited)

    @precondition(lambda self: self.awaited)
    @rule(back=st.integers(0, 2), named=st.sampled_from([True, True, False]))
    def approve_what_is_out_of_date(self, back: int, *, named: bool) -> None:
        """The service has other servers than the plan was made for."""

        def outdated(task: Task) -> list[ev.Event]:
            events_of(task, Approve(digest=task.plan_digest), ANYBODY, LimitSettings(), ApprovalSettings())
            return [repinned_plan(task) if named else ev.TaskFailed(code="definition_changed", message="m")]

        self.tell("an approval of an outdated plan")
        self.written(back, outdated)

    @precondition(lambda self: self.task.plan_revision > 1 and self.task.status == "awaiting_approval")
    @rule()
    def wait_too_long(self) -> None:
        self.written(0, lambda task: [ev.TaskExpired(revision=task.plan_revision, digest=task.plan_digest or "")])

    @precondition(lambda self: self.task.version > 6 and len(self.world.received) != 1)
    @rule(back=st.integers(0, 3), astray=st.sampled_from([False, False, True]))
    def cancel(self, back: int, *, astray: bool) -> None:
        def cancelled(task: Task) -> list[ev.Event]:
            events = events_of(task, Cancel(), ANYBODY, LimitSettings(), ApprovalSettings())
            if not events:
                raise DecisionRefusedError("It is being cancelled already.", task.status)
            return events

        if self.written(back, cancelled):
            self.store.cancelled = True
            if astray:
                self.a_run_goes_astray()

    @precondition(lambda self: self.task.unknown_steps)
    @rule(
        data=st.data(),
        how=st.sampled_from(["done", "retry", "retry", "skip", "fail"]),
        back=st.integers(0, 2),
        by=CALLERS,
    )
    def resolve(self, data: st.DataObject, how: ev.Resolution, back: int, by: Caller) -> None:
        step_id = data.draw(st.sampled_from(self.task.unknown_steps))
        call = self.task.steps[step_id].call
        assert call
        output = data.draw(st.sampled_from([None, {"n": 7}])) if how == "done" else None
        self.decide(Resolve(step_id=step_id, call_id=call.call_id, resolution=how, output=output), back, by)

    @precondition(lambda self: self.asking)
    @rule(
        data=st.data(), kind=st.sampled_from([ApproveCall, ApproveCall, DenyCall]), back=st.integers(0, 2), by=CALLERS
    )
    def decide_on_a_call(self, data: st.DataObject, kind: type[ApproveCall | DenyCall], back: int, by: Caller) -> None:
        asked = self.task.steps[data.draw(st.sampled_from(self.asking))].asked
        assert asked
        comment = data.draw(st.sampled_from([None, "not so"]))
        self.decide(kind(call_id=asked.call_id, arguments_digest=asked.arguments_digest, comment=comment), back, by)

    @precondition(lambda self: any(run.waiting for run in self.runs) and not self.task.questions)
    @rule(
        data=st.data(),
        then=st.sampled_from([[], [], [], ["silence"], ["good", "more"]]),
        content=st.sampled_from(CONTENTS),
        by=CALLERS,
    )
    def a_server_asks(self, data: st.DataObject, then: list[str], content: dict[str, Any] | None, by: Caller) -> None:
        """In a call that is open. Somebody may be there and answer at once, or be too late."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.waiting]))
        self.go_on(run, ["asks", "asks", *then])
        if self.task.questions:
            self.answer_one(data, content, 0, by)

    @precondition(lambda self: self.task.questions)
    @rule(data=st.data(), content=st.sampled_from(CONTENTS), back=st.integers(0, 2), by=CALLERS)
    def answer_a_question(self, data: st.DataObject, content: dict[str, Any] | None, back: int, by: Caller) -> None:
        self.answer_one(data, content, back, by)

    def answer_one(self, data: st.DataObject, content: dict[str, Any] | None, back: int, by: Caller) -> None:
        """Somebody answers what a server asks, with what fits or does not, or declines."""
        asked = self.task.questions[data.draw(st.sampled_from([*self.task.questions]))]
        action: Literal["accept", "decline"] = "decline" if content is None else "accept"
        if self.decide(Answer(question_id=asked.question_id, action=action, content=content), back, by):
            self.tell(f"a question: {action}")

    @property
    def asking(self) -> list[str]:
        return [name for name, step in self.task.steps.items() if step.status is StepStatus.ASKING]

    @precondition(lambda self: self.task.terminal and self.ended)
    @rule(**SUBMISSIONS)
    def submit_another(self, **submission: Any) -> None:
        self.end_of_life()
        self.submitted(**submission)

    @precondition(lambda self: self.task.plan_revision > 0 and self.task.epoch > 0 and self.may_go_wrong)
    @rule(data=st.data(), who=st.sampled_from(MINDLESS))
    def somebody_has_lost_their_mind(self, data: st.DataObject, who: str) -> None:
        self.tell(f"{who} without a mind")
        match who:
            case "a service":
                self.the_service_has_lost_its_mind(data)
            case "a run":
                self.a_run_has_lost_its_mind(data)
            case "a run that strays":
                self.a_run_goes_astray()
            case "a run at its end":
                self.a_run_ends_the_task_of_its_own_accord()
            case _:
                self.others_write_what_comes_to_mind()

    @property
    def may_go_wrong(self) -> bool:
        """Not always: it would end most lives before much else could happen."""
        return self.since_end == 1 if self.task.terminal else self.task.version % 3 == 0

    # What must hold whatever happens. Hypothesis asks in the order of the names.

    def judge(self, guarantee: str) -> None:
        assert not self.world.breaches or not self.world.breaches[0].startswith(guarantee), self.world.breaches

    @invariant()
    def g2_no_call_is_sent_twice_for_one_approved_use(self) -> None:
        self.judge("G2")

    @invariant()
    def g4_nothing_runs_but_what_was_approved(self) -> None:
        self.judge("G4")

    @invariant()
    def g5_nothing_is_sent_but_the_current_steps_of_the_plan(self) -> None:
        self.judge("G5")

    @invariant()
    def g7_the_end_is_the_end(self) -> None:
        self.judge("G7")
        if self.ended and self.task != self.ended:
            self.world.breach("G7", f"{self.ended.status} became {self.task.status}")
            self.judge("G7")
        if self.task.status == "completed":
            kept = {name: step.result.model_dump() for name, step in self.task.steps.items() if step.result}
            for name, step in self.world.steps.items():
                said = {key: kept.get(name, {}).get(key) for key in ("text", "output", "is_error")}
                same = step.result and said == {key: step.result[key] for key in said}
                self.world.expect("G7", step.status != "completed" or same, f"the result of {name} is another")
            self.judge("G7")

    @invariant()
    def the_journal_is_the_state(self) -> None:
        for record in self.store.records[self.restored.version :]:
            back = ev.restore_record(record.task_id, record.seq, record.epoch, record.at, record.type, record.data)
            self.restored = evolve(self.restored, back)
        assert self.restored == self.task
        assert self.restored.version == len(self.store.records)

    @invariant()
    def the_budget_holds(self) -> None:
        calls = self.task.limits.budget.tool_calls
        assert calls is None or len(self.world.calls) <= calls

    @invariant()
    def there_is_always_a_next_thing(self) -> None:
        """G3: whoever is neither done nor asking can go on."""
        lost = self.task.cancel_requested or self.task.questions
        waiting = self.task.status in WAITING and not lost
        assert self.goes_on is not (self.task.terminal or waiting)

    @property
    def goes_on(self) -> bool:
        return bool(commands.next_commands(self.task))

    @invariant()
    def what_was_seen(self) -> None:
        type(self).steps += 1
        self.seen = [*self.seen[-3:], self.task]
        self.ended = self.ended or (self.task if self.task.terminal else None)
        self.since_end += self.ended is not None

    def end_of_life(self) -> None:
        """G3: from anywhere, runs without accidents come to an end or to a question: one that plans, and one more."""
        for _ in range(2):
            if not self.goes_on:
                break
            run = self.claim(self.task)
            with suppress(CrashedError):
                for _ in range(100):
                    if not run.step("good"):
                        break
        assert self.world.breaches or self.task.terminal or self.task.status in WAITING
        assert self.world.breaches or self.task.terminal or not self.task.cancel_requested
        self.accidents["late evidence"] += self.store.evidence
        self.events.update(record.type for record in self.store.records)
        for record in self.store.records:
            if isinstance(record.event, ev.ToolCalled) and record.event.attempt > 1:
                self.tell("a call once more")
            elif isinstance(record.event, ev.StepResolved):
                self.tell(f"resolved: {record.event.resolution}")
        for judged in ("G2", "G4", "G5", "G7"):
            self.judge(judged)

    def teardown(self) -> None:
        if hasattr(self, "store") and not self.world.breaches:
            self.end_of_life()


def lives(**more: object) -> type[LifeOfATask]:
    """The machine, with counts of its own."""
    return type("LifeOfATask", (LifeOfATask,), {"steps": 0, "events": Counter(), "accidents": Counter(), **more})
