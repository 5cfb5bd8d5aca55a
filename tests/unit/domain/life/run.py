"""One run of the task, as `services/execution.py` does it, cut into instants between which anything may happen."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent_runtime.domain import call_rules, commands
from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.call_rules import CallRefusedError, Proposal, next_proposal
from agent_runtime.domain.commands import AskModel, CallTool, ProposePlan, WriteEvents
from agent_runtime.domain.errors import ConflictError, IllegalTransitionError, StaleEpochError
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import PendingCall, StepStatus, Task, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import digest
from unit.domain.life.model import ANSWERS, answer
from unit.domain.life.plans import CATALOGUE, Plans, repinned
from unit.domain.life.store import AT, CrashedError, Store
from unit.domain.life.world import World

RESULTS = {
    "good": StoredResult(text="good", output={"n": 1}),
    "big": StoredResult(text="${r1s0.text}", output={"n": 5}),
    "bare": StoredResult(text="bare", output={}),
    "error": StoredResult(text="no", is_error=True),
    "lost": None,
}
"""What a server may answer. One text looks like a reference; it must never be taken for one."""

COMES = frozenset({*RESULTS, *ANSWERS})
"""What may come for whoever waits: for a call, "good" where it is an answer of a model; for a question, a text."""

INSTANTS = (*RESULTS, *ANSWERS, "more", "changed", "outdated", "stray", "down", "asks", "silence")
"""What comes next: the answer to a call or question, more of the run's own work, the news that the tools have changed
or that the servers are others, calls that nobody has asked for, the news that the server cannot be reached, a question
of a server, or the end of its patience.
"""

_ACTS = {TaskStatus.PENDING, TaskStatus.EXECUTING}


@dataclass(frozen=True)
class Question:
    """What a model is asked next."""

    step: AgentStep
    turn: int

    @property
    def step_id(self) -> str:
        return self.step.id


Work = ev.ToolCalled | Question


@dataclass(repr=False)
class Run:
    """Read, decide, write the intents, send, write the answers. It may die between any two of these."""

    store: Store
    plans: Plans
    ids: Iterator[int]
    task: Task
    most: int
    calling: list[Work] = field(default_factory=list)
    """Written down; to be sent next."""
    waiting: list[Work] = field(default_factory=list)
    """Sent; their answers come in any order."""
    answers: list[tuple[Work, str]] = field(default_factory=list)
    """Received; not yet written. A call that was not sent is `unsent`."""
    staged: list[ev.Event] = field(default_factory=list)
    planned: bool = False
    trouble: ToolStep | AgentStep | None = None
    is_down: bool = False
    """Whether the trouble is that the server cannot be reached; else its tools have changed."""
    superseded: bool = False
    """It has found out; what it still waits for is kept as evidence."""

    def __post_init__(self) -> None:
        self.epoch = self.task.epoch
        self.committed = self.task

    def __repr__(self) -> str:
        return f"Run({self.epoch})"

    def step(self, instant: str) -> bool:
        """Do the next thing. False: nothing is left to do here, and this run ends."""
        if self.calling:
            self.send(self.calling.pop(0))
            return True
        if self.waiting and instant in COMES:
            self.answers.append((self.waiting.pop(len(self.waiting) // 2), instant))
            return True
        if self.superseded:
            return self.leave_evidence()
        try:
            return self.turn(instant)
        except StaleEpochError:
            self.superseded = True
            return True

    def send(self, work: Work) -> None:
        # However late: an intent of a run that was taken for dead is sent once, or never.
        if self.store.cancelled:
            self.answers.append((work, "unsent"))
            return
        if isinstance(work, Question):
            self.store.world.be_asked(work.step_id, work.turn, self.epoch)
        else:
            self.store.world.receive(work)
        self.waiting.append(work)

    def turn(self, instant: str) -> bool:
        """Write what came of the calls, what follows from it and the next intents, all in one append."""
        for work, how in self.answers:
            self.settle(work, how)
        self.answers.clear()
        if instant == "outdated" and self.may_be_repinned:
            self.stage(repinned_plan(self.task))
        if instant == "asks":
            self.ask_person()
        elif instant == "silence":
            self.withdraw_questions()
        begun = self.stray() if instant == "stray" else []
        begun += self.decide(begun, instant=instant)
        if not self.staged:  # a question to a model may need nothing written
            self.calling = begun
            return bool(begun or self.waiting)
        try:
            self.committed = self.store.append(self.committed, *self.staged, epoch=self.epoch)
        except ConflictError:
            self.catch_up()
            return True
        self.task, self.staged = self.committed, []
        self.calling = begun
        return True

    def ask_person(self) -> None:
        """A server asks something in the first call that is open and asks nothing yet."""
        if self.task.status not in ev.InputRequested.follows or self.task.cancel_requested:
            return
        for work in self.waiting:
            state = self.task.steps[work.step_id]
            call = state.open_call
            if isinstance(work, ev.ToolCalled) and call and call.call_id == work.call_id and not state.question:
                parts = {"step_id": work.step_id, "call_id": work.call_id, "server": work.server, "tool": work.tool}
                schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
                question_id = f"q{next(self.ids)}"
                self.stage(
                    ev.InputRequested(**parts, question_id=question_id, message="How many?", requested_schema=schema)
                )
                return

    def withdraw_questions(self) -> None:
        """The calls of this run that ask something may take no longer."""
        for step_id, asked in self.task.questions.items():
            if step_id in self.busy:
                self.stage(ev.InputWithdrawn(step_id=step_id, question_id=asked.question_id, reason="silence"))

    @property
    def may_be_repinned(self) -> bool:
        task = self.task
        return task.status is TaskStatus.EXECUTING and not task.has_begun and not task.cancel_requested

    def catch_up(self) -> None:
        """Decide anew on what was written meanwhile; the answers in hand stay staged."""
        self.task = self.committed = self.store.task
        if self.task.epoch != self.epoch:
            raise StaleEpochError("a newer run owns the task")
        facts, self.staged = self.facts, []
        if not self.task.terminal:
            self.stage(*facts)

    @property
    def facts(self) -> list[ev.ToolReturned | ev.ModelAnswered]:
        return [event for event in self.staged if isinstance(event, ev.ToolReturned | ev.ModelAnswered)]

    def leave_evidence(self) -> bool:
        late = [_returned(call, how) for call, how in self.answers if isinstance(call, ev.ToolCalled)]
        facts = [fact for fact in (*self.facts, *late) if isinstance(fact, ev.ToolReturned)]
        if not self.store.task.terminal and facts:
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

    def settle(self, work: Work, how: str) -> None:
        if isinstance(work, Question):
            if self.task.terminal:
                return
            if how not in {"error", "lost", "unsent"}:
                self.stage(answer(work.step, work.turn, how))
            elif how != "unsent" and self.task.status is TaskStatus.EXECUTING and not self.task.cancel_requested:
                self.stage(ev.StepFailed(step_id=work.step_id, code="model_error", message=how))
        elif returned := _returned(work, how):
            self.stage(returned)
        elif self.store.cancelled or not may_repeat(self.task, work.step_id):
            self.stage(ev.StepOutcomeUnknown(step_id=work.step_id, call_id=work.call_id, reason="lost"))

    def decide(self, strayed: list[Work], *, instant: str) -> list[Work]:
        begun: list[Work] = []
        while not self.planned and self.may_act:
            busy = self.busy | {work.step_id for work in (*strayed, *begun)}
            if self.trouble and not busy:
                self.give_up(self.trouble)
                continue
            wanted = () if self.trouble else commands.next_commands(self.task, busy)
            match wanted[0] if wanted else None:
                case WriteEvents(events):
                    self.stage(*events)
                case ProposePlan():
                    self.planned = True
                    self.stage(*self.proposal())
                case AskModel(step) if len(busy) < self.most:
                    begun.append(self.question(step))
                case CallTool(step) if len(busy) < self.most:
                    troubled, self.is_down = instant in {"changed", "down"}, instant == "down"
                    self.trouble = step if troubled else None
                    begun += [] if troubled else self.intend(step, busy)
                case _:
                    break
        return begun

    @property
    def may_act(self) -> bool:
        task = self.task
        return bool(task.status in _ACTS or task.cancel_requested or task.questions.keys() - self.busy)

    @property
    def busy(self) -> set[str]:
        return {work.step_id for work in self.waiting}

    def proposal(self) -> list[ev.Event]:
        """The next revision, with the policy's approval where the task wants it."""
        revision = self.task.plan_revision + 1
        contract = self.plans(revision)
        proposed = ev.PlanProposed(
            revision=revision,
            digest=contract.digest,
            contract=contract,
            definitions={key: CATALOGUE[key].definition for key in contract.pins},
            planner="rules",
        )
        approved = ev.PlanApproved(revision=revision, digest=contract.digest, actor=ev.POLICY)
        return [proposed, approved] if self.task.approval == "auto" and not self.task.feedback else [proposed]

    def question(self, step: AgentStep) -> Question:
        state = self.task.steps[step.id]
        if state.status is StepStatus.PENDING:
            self.stage(ev.StepStarted(step_id=step.id, title=step.title))
        return Question(step, len(state.turns) + 1)

    def intend(self, step: ToolStep | AgentStep, busy: set[str]) -> list[Work]:
        """The call that is next, or the question to a person, or what follows where a rule is against it."""
        proposal = next_proposal(self.task, step)
        try:
            return self.propose(proposal, busy)
        except CallRefusedError as refusal:
            lost = self.task.open_calls.get(step.id)
            if self.task.status in ev.ToolDenied.follows:
                self.stage(_denied(proposal, refusal, None if lost else proposal.pending))
            if lost:
                self.stage(ev.StepOutcomeUnknown(step_id=step.id, call_id=lost.call_id, reason=str(refusal)))
            elif isinstance(step, ToolStep):
                self.stage(ev.StepFailed(step_id=step.id, code=refusal.rule, message=str(refusal)))
            return []

    def propose(self, proposal: Proposal, busy: set[str]) -> list[Work]:
        """Have the rules judge a call, whoever wants it, and do what they permit. Raises: CallRefusedError."""
        permitted = call_rules.judge(self.task, proposal, busy, (), call_rules.Bounds(1))
        state = self.task.steps[proposal.step_id]
        asked = state.asked if permitted.attempt == 1 else None
        arguments = permitted.arguments if proposal.arguments is None else proposal.arguments
        parts = {
            "step_id": proposal.step_id,
            "call_id": asked.call_id if asked else f"c{next(self.ids)}",
            "server": proposal.server,
            "tool": proposal.tool,
            "arguments": arguments,
            "arguments_digest": digest(arguments),
            "turn": state.pending.turn if state.pending else None,
            "index": state.pending.index if state.pending else None,
        }
        if permitted.reason is not None:
            self.stage_permitted(ev.CallApprovalRequested(**parts, reason=permitted.reason))
            return []
        timeout_s = max(0.001, min(permitted.timeout_s or 60.0, seconds_left(self.task, busy)))
        called = ev.ToolCalled(**parts, attempt=permitted.attempt, timeout_s=timeout_s)
        started = state.status is StepStatus.PENDING
        self.stage_permitted(*([ev.StepStarted(step_id=proposal.step_id, title="t")] if started else []), called)
        return [called]

    def stage_permitted(self, *events: ev.Event) -> None:
        """What the rules permit, the journal takes; where it does not, the judge says what is wrong with it."""
        for number, event in enumerate(events):
            try:
                self.stage(event)
            except IllegalTransitionError as refusal:
                world = World()
                for record in self.store.records[: self.committed.version]:  # as far as this run has read it
                    world.read(record)
                for more in (*self.staged, *events[number:]):
                    world.read(ev.make_record("t", 1, self.epoch, AT, more))
                wrong = world.breaches or [f"G3: the rules permit what the journal refuses: {refusal}"]
                self.store.world.breaches += wrong[:1]
                raise CrashedError from refusal

    def stray(self) -> list[Work]:
        """Propose whatever comes to mind; what is refused is forgotten."""
        begun: list[Work] = []
        for step in self.task.contract.steps if self.task.contract else ():
            for proposal in _strays(step, self.task.steps[step.id].pending):
                try:
                    begun += self.propose(proposal, self.busy | {work.step_id for work in begun})
                except CallRefusedError:
                    continue
        return begun

    def wait(self) -> ev.TaskWaiting:
        """Return that the task waits for its server."""
        before = self.task.waiting
        return ev.TaskWaiting(
            kind="server",
            name="f",
            reason="it is down",
            attempt=before.attempt + 1 if before else 1,
            next_try_at=AT,
            gives_up_at=AT,
        )

    def give_up(self, step: ToolStep | AgentStep) -> None:
        """The tools are not those that the plan was made with: end, or ask about what is open."""
        self.trouble = None
        if self.is_down:
            self.planned = True
            self.stage(self.wait())
            return
        open_calls = self.task.open_calls
        for name, call in open_calls.items():
            self.stage(ev.StepOutcomeUnknown(step_id=name, call_id=call.call_id, reason="the tools have changed"))
        if not open_calls:
            changed = CallRefusedError("changed", "m")
            denied = _denied(next_proposal(self.task, step), changed, None)
            self.stage(denied, ev.TaskFailed(code="changed", message="m", step_id=step.id))


def repinned_plan(task: Task) -> ev.PlanRepinned:
    """The plan as the next revision, for another server."""
    assert task.contract
    contract = repinned(task.contract)
    return ev.PlanRepinned(
        revision=task.plan_revision + 1,
        digest=contract.digest,
        contract=contract,
        definitions={key: CATALOGUE[key].definition for key in contract.pins},
    )


def _strays(step: ToolStep | AgentStep, pending: PendingCall | None) -> Iterator[Proposal]:
    """Calls of one step that are not what it wants next, and that call with what is not said or not so."""
    for key in CATALOGUE:
        server, tool = key.split("/")
        yield Proposal(step.id, server, tool, {"n": 99})
        yield Proposal(step.id, server, tool)
        if isinstance(step, AgentStep):
            yield Proposal(step.id, server, tool, {"n": 2}, pending)
            if pending:
                yield Proposal(step.id, server, tool, pending=replace(pending, index=pending.index + 1))
    yield Proposal(step.id + "x", "f", "look")


def _denied(proposal: Proposal, refusal: CallRefusedError, pending: PendingCall | None) -> ev.ToolDenied:
    return ev.ToolDenied(
        step_id=proposal.step_id,
        server=proposal.server,
        tool=proposal.tool,
        rule=refusal.rule,
        message=str(refusal),
        turn=pending.turn if pending else None,
        index=pending.index if pending else None,
    )


def _returned(call: ev.ToolCalled, how: str) -> ev.ToolReturned | None:
    unsent = StoredResult(text="the task was cancelled", is_error=True)
    result = unsent if how == "unsent" else RESULTS.get(how, RESULTS["good"])
    if result is None:
        return None
    return ev.ToolReturned(step_id=call.step_id, call_id=call.call_id, result=result, duration_ms=1)
