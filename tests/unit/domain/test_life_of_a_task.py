"""The whole life of a task under every accident: runs that die, runs that do not know they are dead, answers that
are lost, people who decide at the worst moment. Guarantees G2, G4, G5 and G7 must hold on every path (G3: progress).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_runtime.domain import events as ev
from agent_runtime.domain.commands import CallTool, ProposePlan, Record, next_commands
from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedPolicy
from agent_runtime.domain.errors import ConflictError, IllegalTransitionError, StaleEpochError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.task import MOST_ATTEMPTS, TERMINAL, WAITING, Task
from agent_runtime.domain.tools import Effect, StoredResult
from agent_runtime.domain.transitions import evolve, is_late_evidence, replay

AT = datetime(2026, 11, 21, tzinfo=UTC)
ANSWERS = st.lists(st.sampled_from(["good", "error", "lost", "more"]), min_size=1, max_size=10)
LONG = st.sampled_from(["good", "error", "lost"]).map(lambda answer: ["more", answer] * 10)


Plans = Callable[[int], Contract]
"""The plan of each revision."""


class Journal:
    """A store in memory: one journal, with the expected version that every append must name."""

    def __init__(self) -> None:
        self.task = Task("t")
        self.records: list[ev.EventRecord] = []
        self.tampered = False

    def append(self, seen: Task, *events: ev.Event, epoch: int | None = None) -> Task:
        if seen.version != self.task.version:
            raise ConflictError("the journal has grown")
        task, new = self.task, []
        for event in events:
            new.append(ev.record("t", task.version + 1, epoch, AT, event))
            task = evolve(task, new[-1])
        self.task = task
        self.records += new
        return task

    def keep(self, event: ev.ToolReturned, epoch: int) -> None:
        """Take a late answer, whatever the version."""
        late = ev.record("t", self.task.version + 1, epoch, AT, event)
        if is_late_evidence(self.task, late) and self.task.status not in TERMINAL:
            before = self.task
            self.task = evolve(self.task, late)
            self.records.append(late)
            assert self.task.steps == before.steps
            assert self.task.status is before.status


@dataclass
class Run:
    """One run of the task, as the runtime does it: read, decide, write the intents, send, write the answers."""

    journal: Journal
    sent: list[tuple[str, str, str, int]]
    ids: Iterator[int]
    task: Task
    epoch: int
    calling: list[ev.ToolCalled] = field(default_factory=list)
    """Written down; to be sent next."""
    waiting: list[ev.ToolCalled] = field(default_factory=list)
    """Sent; their answers come in any order."""

    def write(self, *events: ev.Event) -> bool:
        try:
            self.task = self.journal.append(self.task, *events, epoch=self.epoch)
        except ConflictError:
            self.task = self.journal.task
            return False
        return True

    def step(self, answer: str, plans: Plans) -> bool:
        """Do the next thing. False: nothing is left to do here, and this run ends."""
        if self.calling:
            # However late: an intent of a run that was taken for dead is sent once, or never.
            call = self.calling.pop(0)
            self.sent.append((call.step_id, call.server, call.tool, self.journal.task.version))
            self.waiting.append(call)
            return True
        if self.waiting and answer != "more":
            return self.answered(self.waiting.pop(len(self.waiting) // 2), answer)
        try:
            return self.decide(plans) or (bool(self.waiting) and self.answered(self.waiting.pop(), "good"))
        except StaleEpochError:
            return False

    def answered(self, call: ev.ToolCalled, answer: str) -> bool:
        if answer == "lost":
            return True  # next_commands is asked with the call still open
        result = StoredResult(text=answer, is_error=answer == "error")
        event = ev.ToolReturned(step_id=call.step_id, call_id=call.call_id, result=result, duration_ms=1)
        try:
            while not self.write(event):
                pass
        except StaleEpochError:
            self.journal.keep(event, self.epoch)
            return False
        except IllegalTransitionError:
            # Only after a newer claim, or where an impostor wrote in this run's name.
            assert self.journal.task.epoch > self.epoch or self.journal.task.terminal or self.journal.tampered
            return False
        return True

    def decide(self, plans: Plans) -> bool:
        if self.task.epoch != self.epoch:
            return False
        in_flight = {call.step_id for call in self.waiting}
        answered = self.task.status == "approved"  # a person has spoken: that is for a run to come
        commands = () if answered else next_commands(self.task, in_flight)
        if not commands:
            return False
        command = commands[0]
        if isinstance(command, ProposePlan):
            revision = self.task.plan_revision + 1
            contract = plans(revision)
            proposed = ev.PlanProposed(
                revision=revision,
                digest=contract.digest,
                contract=contract,
                definitions={},
                planner="rules",
            )
            self.write(proposed)
        elif isinstance(command, CallTool):
            assert isinstance(command.step, ToolStep)
            self.call(command.step)
        else:
            assert isinstance(command, Record)
            self.write(*command.events)
        return True

    def call(self, step: ToolStep) -> None:
        state = self.task.steps[step.id]
        begin = [ev.StepStarted(step_id=step.id, title=step.title)] if state.status == "pending" else []
        called = ev.ToolCalled(
            step_id=step.id,
            call_id=f"c{next(self.ids)}",
            server=step.server,
            tool=step.tool,
            arguments=step.arguments,
            arguments_digest="d",
            attempt=state.call.attempt + 1 if state.call and begin == [] else 1,
        )
        if self.write(*begin, called):
            self.calling.append(called)


def plan(shapes: list[tuple[bool, int, int]], budget: Budget, revision: int) -> Contract:
    """A plan of steps: whether the tool is idempotent, its retries, and how many earlier steps it needs.

    Every revision has steps of its own, so that it shows from which one a call came.
    """
    steps = tuple(
        ToolStep(
            id=f"r{revision}s{n}",
            kind="tool",
            server="f",
            tool="read" if idempotent else "write",
            retries=retries if idempotent else 0,
            depends_on=tuple(f"r{revision}s{m}" for m in range(max(0, n - needs), n)),
        )
        for n, (idempotent, retries, needs) in enumerate(shapes)
    )
    policy = {
        f"f/{name}": PinnedPolicy(effect=Effect.WRITE, idempotent=name == "read", approval="plan")
        for name in ("read", "write")
    }
    return Contract(goal="g", steps=steps, limits=Limits(budget=budget), policy=policy, pins={})


class LifeOfATask(RuleBasedStateMachine):
    """A front end, any number of runs, one journal."""

    TERMINAL_FACTS: ClassVar = frozenset(
        {"task.completed", "task.failed", "task.cancelled", "task.expired", "plan.rejected"}
    )

    @initialize(
        shapes=st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=3),
        approved=st.sampled_from([True, True, False]),
        budget=st.builds(Budget, tool_calls=st.none() | st.integers(1, 6), seconds=st.none() | st.just(0.0025)),
    )
    def submitted(self, shapes: list[tuple[bool, int, int]], budget: Budget, *, approved: bool) -> None:
        self.plans = partial(plan, shapes, budget)
        self.journal = Journal()
        self.journal.append(self.journal.task, ev.TaskSubmitted(prompt="p", limits=self.contract.limits))
        self.sent: list[tuple[str, str, str, int]] = []
        self.runs: list[Run] = []
        self.ids = count(1)
        self.ended: Task | None = None
        if approved:
            self.go_on(self.claim(), ["good", "good"])
            self.approve(stale=True, back=0)
            self.approve(stale=False, back=0)

    @property
    def task(self) -> Task:
        return self.journal.task

    @property
    def contract(self) -> Contract:
        return self.task.contract or self.plans(1)

    # A runner with proof that the older runs are dead. They may not know it: they stay in `runs`.

    def claim(self) -> Run:
        epoch = self.task.epoch + 1
        task = self.journal.append(self.task, ev.TaskClaimed(runner="r", epoch=epoch), epoch=epoch)
        self.runs.append(Run(self.journal, self.sent, self.ids, task, epoch))
        return self.runs[-1]

    @precondition(lambda self: bool(next_commands(self.task)) and len(self.runs) < 6)
    @rule(steps=ANSWERS | LONG)
    def a_runner_takes_the_task(self, steps: list[str]) -> None:
        self.go_on(self.claim(), steps)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), steps=ANSWERS | LONG)
    def a_run_goes_on(self, data: st.DataObject, steps: list[str]) -> None:
        """Any run: the newest, or one that was superseded and does not know."""
        self.go_on(data.draw(st.sampled_from(self.runs)), steps)

    def go_on(self, run: Run, steps: list[str]) -> None:
        for answer in steps:
            if not run.step(answer, self.plans):
                self.runs.remove(run)
                return

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def a_run_dies(self, data: st.DataObject) -> None:
        self.runs.remove(data.draw(st.sampled_from(self.runs)))

    # People, who may be late: what they decide may be refused, and then nothing has changed.

    def outside(self, event: ev.Event) -> bool:
        before = self.task
        try:
            self.journal.append(self.task, event)
        except IllegalTransitionError:
            assert self.task == before
            return False
        return True

    @rule(stale=st.booleans(), back=st.sampled_from([0, 0, 1, 2]))
    def approve(self, *, stale: bool, back: int) -> None:
        """The current plan, one that nobody made, or one that was current when it was read."""
        revision = max(1, self.task.plan_revision - back)
        digest = "sha256:other" if stale else self.plans(revision).digest
        current = not stale and revision == self.task.plan_revision
        assert not self.outside(ev.PlanApproved(revision=revision, digest=digest)) or current
        assert current or not self.outside(ev.PlanApproved(revision=self.task.plan_revision, digest=digest))

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule(late=st.booleans())
    def revise(self, *, late: bool) -> None:
        revision = max(1, self.task.plan_revision - late)
        asked = ev.PlanRevisionRequested(feedback="f", revision=revision, digest=self.plans(revision).digest)
        could = self.task.status == "awaiting_approval" and revision == self.task.plan_revision
        assert self.outside(asked) is could

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule(late=st.booleans())
    def edit(self, *, late: bool) -> None:
        revision = self.task.plan_revision + (not late)
        contract = self.plans(revision)
        edited = ev.PlanEdited(revision=revision, digest=contract.digest, contract=contract, definitions={})
        could = self.task.status == "awaiting_approval" and not late
        assert self.outside(edited) is could

    @precondition(lambda self: self.task.plan_revision > 1)
    @rule()
    def expire(self) -> None:
        could = self.task.status == "awaiting_approval"
        expired = ev.TaskExpired(revision=self.task.plan_revision, digest=self.task.plan_digest or "")
        assert self.outside(expired) is could

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule()
    def reject(self) -> None:
        self.outside(ev.PlanRejected(revision=self.task.plan_revision, digest=self.contract.digest))

    @precondition(lambda self: self.task.version > 6 and len(self.sent) != 1)
    @rule()
    def cancel(self) -> None:
        self.outside(ev.TaskCancelRequested())

    @precondition(lambda self: self.task.unknown_steps)
    @rule(resolution=st.sampled_from(["done", "retry", "retry", "skip", "fail"]), wrong=st.booleans())
    def resolve(self, resolution: ev.Resolution, *, wrong: bool) -> None:
        step = self.task.unknown_steps[0]
        call = self.task.steps[step].call
        assert call
        call_id = "c0" if wrong else call.call_id
        self.outside(ev.StepResolved(step_id=step, call_id=call_id, resolution=resolution))

    # What nobody but a mistaken or malicious caller would write.

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule()
    def a_run_that_has_lost_its_mind_calls_what_it_can(self) -> None:
        for step in self.contract.steps:
            assert isinstance(step, ToolStep)
            for tool in ("rm", step.tool):
                before = self.task.steps[step.id]
                attempt = before.call.attempt + 1 if before.call else 1
                if self.accepted(self.called(step, tool, attempt), self.task.epoch):
                    assert before.status == "running", "it was not the step's turn"
                    self.sent.append((step.id, "f", tool, self.task.version))

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule()
    def others_write_what_comes_to_mind(self) -> None:
        epoch = self.task.epoch
        for step in self.contract.steps:
            assert isinstance(step, ToolStep)
            events = [self.called(step, step.tool, attempt) for attempt in (1, 2)]
            of_a_run = (*events, ev.StepStarted(step_id=step.id, title="t"), ev.StepCompleted(step_id=step.id))
            for event in (*of_a_run, ev.TaskFailed(code="c", message="m", step_id=step.id)):
                for other in (epoch - 1, epoch + 1, None):
                    assert not self.accepted(event, other), "another run than the newest wrote"
            assert not self.accepted(ev.StepResolved(step_id=step.id, call_id="c0", resolution="retry"), None)
        assert not self.accepted(ev.TaskClaimed(runner="thief", epoch=epoch), epoch)
        if self.task.status in WAITING and not self.task.cancel_requested:
            assert not self.accepted(ev.TaskClaimed(runner="thief", epoch=epoch + 1), epoch + 1)
        if self.task.status != "executing":
            for step in self.contract.steps:
                assert not self.accepted(ev.StepStarted(step_id=step.id, title="t"), epoch)
        revision = self.task.plan_revision + 1
        forged = ev.PlanProposed(revision=revision, digest="d", contract=self.contract, definitions={}, planner="x")
        assert not self.accepted(forged, None)

    @precondition(lambda self: self.task.plan_revision > 0)
    @rule(end=st.sampled_from([ev.TaskCompleted(result="made up"), ev.TaskCancelled()]))
    def a_run_that_has_lost_its_mind_ends_the_task(self, end: ev.Event) -> None:
        ended = all(step.has_ended for step in self.task.steps.values())
        if self.accepted(end, self.task.epoch):
            assert ended or self.task.cancel_requested

    def called(self, step: ToolStep, tool: str, attempt: int) -> ev.ToolCalled:
        return ev.ToolCalled(
            step_id=step.id,
            call_id=f"c{next(self.ids)}",
            server=step.server,
            tool=tool,
            arguments={},
            arguments_digest="d",
            attempt=attempt,
        )

    def accepted(self, event: ev.Event, epoch: int | None) -> bool:
        before = self.task
        try:
            self.journal.append(self.task, event, epoch=epoch)
        except (IllegalTransitionError, StaleEpochError):
            assert self.task == before
            return False
        self.journal.tampered = True
        return True

    # What must hold whatever happens.

    @invariant()
    def the_journal_is_the_state(self) -> None:
        restored = [ev.restore(r.task_id, r.seq, r.epoch, r.at, r.type, r.data) for r in self.journal.records]
        assert replay("t", restored) == self.task
        assert [record.seq for record in restored] == list(range(1, len(restored) + 1))

    @invariant()
    def nothing_is_sent_too_often(self) -> None:
        """G2, over all runs, dead or alive."""
        sent = Counter(step for step, *_ in self.sent)
        retries = Counter(
            record.event.step_id
            for record in self.journal.records
            if isinstance(record.event, ev.StepResolved) and record.event.resolution == "retry"
        )
        for step in self.contract.steps:
            assert isinstance(step, ToolStep)
            idempotent = self.contract.policy[f"{step.server}/{step.tool}"].idempotent
            most = max(MOST_ATTEMPTS, step.retries + 1) if idempotent else 1
            assert sent[step.id] <= most * (1 + retries[step.id]), (step.id, sent)

    @invariant()
    def nothing_is_sent_but_what_was_approved(self) -> None:
        """G4, G5."""
        approved = [(r.seq, r.event) for r in self.journal.records if isinstance(r.event, ev.PlanApproved)]
        assert len(approved) <= 1
        for seq, approval in approved:
            made = [r.event for r in self.journal.records[:seq] if isinstance(r.event, ev.PlanProposed | ev.PlanEdited)]
            assert (made[-1].revision, made[-1].digest) == (approval.revision, approval.digest), "the newest plan only"
        for step, server, tool, version in self.sent:
            assert approved
            assert version > approved[0][0]
            steps = self.plans(approved[0][1].revision).steps
            assert (step, server, tool) in {(s.id, s.server, s.tool) for s in steps if isinstance(s, ToolStep)}
        kinds = {record.type for record in self.journal.records}
        assert "plan.rejected" not in kinds or not self.sent

    @invariant()
    def the_end_is_the_end(self) -> None:
        """G7."""
        kinds = [record.type for record in self.journal.records]
        if "task.cancel_requested" in kinds:
            assert "tool.called" not in kinds[kinds.index("task.cancel_requested") :]
        assert sum(kind in self.TERMINAL_FACTS for kind in kinds) == self.task.terminal
        if self.ended:
            assert self.task == self.ended
        elif self.task.terminal:
            self.ended = self.task
        if self.task.status == "completed":
            assert not any(step.status == "failed" for step in self.task.steps.values())
            assert all(step.result or step.status == "skipped" for step in self.task.steps.values())
            assert "task.cancel_requested" not in kinds

    @invariant()
    def the_budget_holds(self) -> None:
        calls = self.contract.limits.budget.tool_calls
        assert calls is None or len(self.sent) <= calls

    @invariant()
    def there_is_always_a_next_thing(self) -> None:
        """G3: whoever is neither done nor asking can go on."""
        waiting = self.task.status in WAITING and not self.task.cancel_requested
        assert bool(next_commands(self.task)) is not (self.task.terminal or waiting)

    def teardown(self) -> None:
        """G3: from anywhere, a run without accidents comes to an end or to a question."""
        if not next_commands(self.task):
            return
        run = self.claim()
        for _ in range(100):
            if not run.step("good", self.plans):
                break
        self.nothing_is_sent_too_often()
        self.the_end_is_the_end()
        assert self.task.terminal or self.task.status in WAITING
        assert self.task.terminal or not self.task.cancel_requested


TestLifeOfATask = LifeOfATask.TestCase
TestLifeOfATask.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
