"""One run of the task, as `services/execution.py` does it, cut into instants between which anything may happen."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from agent_runtime.domain import commands
from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.commands import CallTool, ProposePlan, Record
from agent_runtime.domain.errors import ConflictError, ReferenceFailedError, StaleEpochError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import resolve
from agent_runtime.domain.task import StepStatus, Task, TaskStatus, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import digest
from unit.domain.life.plans import Plans
from unit.domain.life.store import AT, Store

RESULTS = {
    "good": StoredResult(text="good", output={"n": 1}),
    "big": StoredResult(text="${r1s0.text}", output={"n": 5}),
    "bare": StoredResult(text="bare", output={}),
    "error": StoredResult(text="no", is_error=True),
    "lost": None,
}
"""What a server may answer. One text looks like a reference; it must never be taken for one."""

INSTANTS = (*RESULTS, "more", "changed")
"""What comes next: the answer to a call, more of the run's own work, or the news that the tools have changed."""

_ACTS = {TaskStatus.PENDING, TaskStatus.EXECUTING}


@dataclass
class Run:
    """Read, decide, write the intents, send, write the answers. It may die between any two of these."""

    store: Store
    plans: Plans
    ids: Iterator[int]
    task: Task
    most: int
    calling: list[ev.ToolCalled] = field(default_factory=list)
    """Written down; to be sent next."""
    waiting: list[ev.ToolCalled] = field(default_factory=list)
    """Sent; their answers come in any order."""
    answers: list[tuple[ev.ToolCalled, StoredResult | None]] = field(default_factory=list)
    """Received; not yet written."""
    staged: list[ev.Event] = field(default_factory=list)
    planned: bool = False
    trouble: ToolStep | None = None
    superseded: bool = False
    """It has found out; what it still waits for is kept as evidence."""

    def __post_init__(self) -> None:
        self.epoch = self.task.epoch
        self.committed = self.task

    def step(self, instant: str) -> bool:
        """Do the next thing. False: nothing is left to do here, and this run ends."""
        if self.calling:
            self.send(self.calling.pop(0))
            return True
        if self.waiting and instant in RESULTS:
            self.answers.append((self.waiting.pop(len(self.waiting) // 2), RESULTS[instant]))
            return True
        if self.superseded:
            return self.leave_evidence()
        try:
            return self.turn(changed=instant == "changed")
        except StaleEpochError:
            self.superseded = True
            return True

    def send(self, call: ev.ToolCalled) -> None:
        # However late: an intent of a run that was taken for dead is sent once, or never.
        if self.store.cancelled:
            self.answers.append((call, StoredResult(text="the task was cancelled", is_error=True)))
        else:
            self.store.world.receive(call)
            self.waiting.append(call)

    def turn(self, *, changed: bool) -> bool:
        """Write what came of the calls, what follows from it and the next intents, all in one append."""
        for call, result in self.answers:
            self.settle(call, result)
        self.answers.clear()
        begun = self.decide(changed=changed)
        if not self.staged:
            return bool(self.waiting)
        try:
            self.committed = self.store.append(self.committed, *self.staged, epoch=self.epoch)
        except ConflictError:
            self.catch_up()
            return True
        self.task, self.staged = self.committed, []
        self.calling = begun
        return True

    def catch_up(self) -> None:
        """Decide anew on what was written meanwhile; the answers in hand stay staged."""
        self.task = self.committed = self.store.task
        if self.task.epoch != self.epoch:
            raise StaleEpochError("a newer run owns the task")
        facts, self.staged = self.facts, []
        if not self.task.terminal:
            self.stage(*facts)

    @property
    def facts(self) -> list[ev.ToolReturned]:
        return [event for event in self.staged if isinstance(event, ev.ToolReturned)]

    def leave_evidence(self) -> bool:
        late = [_returned(call, result) for call, result in self.answers if result]
        if not self.store.task.terminal and (facts := [*self.facts, *late]):
            before = self.store.task
            after = self.store.append(before, *facts, epoch=self.epoch)
            self.store.evidence += len(facts)
            assert (after.steps, after.status) == (before.steps, before.status), "evidence changes nothing"
        self.staged, self.answers = [], []
        return bool(self.waiting)

    def stage(self, *events: ev.Event) -> None:
        for event in events:
            self.task = evolve(self.task, ev.EventRecord("t", self.task.version + 1, self.epoch, AT, event, ""))
            self.staged.append(event)

    def settle(self, call: ev.ToolCalled, result: StoredResult | None) -> None:
        if result is not None:
            self.stage(_returned(call, result))
        elif self.store.cancelled or not may_repeat(self.task, call.step_id):
            self.stage(ev.StepOutcomeUnknown(step_id=call.step_id, call_id=call.call_id, reason="lost"))

    def decide(self, *, changed: bool) -> list[ev.ToolCalled]:
        begun: list[ev.ToolCalled] = []
        while not self.planned and (self.task.status in _ACTS or self.task.cancel_requested):
            busy = {call.step_id for call in (*self.waiting, *begun)}
            if self.trouble and not busy:
                self.give_up(self.trouble)
            wanted = () if self.trouble else commands.next_commands(self.task, busy)
            match wanted[0] if wanted else None:
                case Record(events):
                    self.stage(*events)
                case ProposePlan():
                    self.planned = True
                    self.stage(self.proposal())
                case CallTool(step) if len(busy) < self.most:
                    self.trouble = step if changed else None
                    begun += [] if changed else self.intend(step, busy)
                case _:
                    break
        return begun

    def proposal(self) -> ev.PlanProposed:
        revision = self.task.plan_revision + 1
        contract = self.plans(revision)
        return ev.PlanProposed(
            revision=revision, digest=contract.digest, contract=contract, definitions={}, planner="rules"
        )

    def intend(self, step: ToolStep, busy: set[str]) -> list[ev.ToolCalled]:
        state = self.task.steps[step.id]
        try:
            arguments = resolve(step.arguments, self.task.results, 1)
        except ReferenceFailedError as error:
            denied = ev.ToolDenied(step_id=step.id, server="f", tool=step.tool, rule=error.code, message=str(error))
            self.stage(denied, ev.StepFailed(step_id=step.id, code=error.code, message=str(error)))
            return []
        parts = {
            "step_id": step.id,
            "call_id": f"c{next(self.ids)}",
            "server": step.server,
            "tool": step.tool,
            "arguments": arguments,
            "arguments_digest": digest(arguments),
        }
        if self.must_ask(step):
            self.stage(ev.CallApprovalRequested(**parts, reason="it asks"))
            return []
        if state.asked and state.call is None:
            parts["call_id"] = state.asked.call_id
        if state.status is StepStatus.PENDING:
            self.stage(ev.StepStarted(step_id=step.id, title=step.title))
        attempt = state.call.attempt + 1 if state.call else 1
        timeout_s = min(step.timeout_s or 60.0, seconds_left(self.task, busy))
        called = ev.ToolCalled(**parts, attempt=attempt, timeout_s=timeout_s)
        self.stage(called)
        return [called]

    def must_ask(self, step: ToolStep) -> bool:
        asks = self.task.contract is not None and step.id in self.task.contract.asks
        return asks and self.task.steps[step.id].asked is None

    def give_up(self, step: ToolStep) -> None:
        """The tools are not those that the plan was made with: end, or ask about what is open."""
        self.trouble = None
        open_calls = self.task.open_calls
        for name, call in open_calls.items():
            self.stage(ev.StepOutcomeUnknown(step_id=name, call_id=call.call_id, reason="the tools have changed"))
        if not open_calls:
            denied = ev.ToolDenied(step_id=step.id, server="f", tool=step.tool, rule="changed", message="m")
            self.stage(denied, ev.TaskFailed(code="changed", message="m", step_id=step.id))


def _returned(call: ev.ToolCalled, result: StoredResult) -> ev.ToolReturned:
    return ev.ToolReturned(step_id=call.step_id, call_id=call.call_id, result=result, duration_ms=1)
