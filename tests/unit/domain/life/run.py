"""A run of the task, as in `services/execution.py`, divided into instants between which anything may happen."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent_runtime.domain import call_rules, commands
from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.call_rules import CallRefusedError, Proposal, next_proposal
from agent_runtime.domain.commands import AskModel, CallTool, OutlastOutage, ProposePlan, WriteEvents
from agent_runtime.domain.errors import ConflictError, IllegalTransitionError, StaleEpochError
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.plan_requests import fail_planning
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import PendingCall, StepStatus, Task, may_outlast, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import digest
from unit.domain.life.model import ANSWERS, make_answer
from unit.domain.life.plans import CATALOGUE, DraftContract, repin
from unit.domain.life.store import AT, CrashError, Store
from unit.domain.life.world import World

RESULTS = {
    "good": StoredResult(text="good", output={"n": 1}),
    "big": StoredResult(text="${r1s0.text}", output={"n": 5}),
    "bare": StoredResult(text="bare", output={}),
    "error": StoredResult(text="no", is_error=True),
    "busy": StoredResult(text="later", is_error=True, retry_after_s=0),
    "lost": None,
}
"""The possible answers of a server. `busy` is an outage. One text looks like a reference, but must never be one."""

REPLIES = frozenset({*RESULTS, *ANSWERS})
"""The possible replies to work in progress. A call takes a reply of a model as "good"; a question to a model takes a
reply of a server as a text.
"""

INSTANTS = (*RESULTS, *ANSWERS, "more", "changed", "outdated", "stray", "down", "asks", "silence")
"""What happens next: a reply arrives, or the run does more of its own work (`more`), finds that the tools (`changed`)
or the servers (`outdated`) have changed, proposes calls that nobody asked for (`stray`), cannot reach the server
(`down`), gets a question of the server (`asks`), or withdraws its questions because their time is over (`silence`).
"""

_RUNNABLE = {TaskStatus.PENDING, TaskStatus.EXECUTING}


@dataclass(frozen=True)
class ModelQuestion:
    """A request to a model for the next turn of a step."""

    step: AgentStep
    turn: int

    @property
    def step_id(self) -> str:
        return self.step.id


Work = ev.ToolCalled | ModelQuestion


@dataclass(repr=False)
class Run:
    """Reads, decides, writes intents, sends, and writes answers. It may crash between any two of these."""

    store: Store
    draft_contract: DraftContract
    call_numbers: Iterator[int]
    task: Task
    max_parallel: int
    to_send: list[Work] = field(default_factory=list)
    """Work whose intent is written; it is sent next."""
    in_progress: list[Work] = field(default_factory=list)
    """Work that was sent; replies arrive in any order."""
    replies: list[tuple[Work, str]] = field(default_factory=list)
    """Replies that are received and not yet written. `unsent`: the call was not sent."""
    staged: list[ev.Event] = field(default_factory=list)
    has_stopped: bool = False
    blocked_step: ToolStep | AgentStep | None = None
    is_down: bool = False
    """The step is blocked because the server cannot be reached, not because its tools changed."""
    superseded: bool = False
    """The run knows that it was superseded. Answers that still arrive are written as evidence."""

    def __post_init__(self) -> None:
        self.epoch = self.task.epoch
        self.committed = self.task

    def __repr__(self) -> str:
        return f"Run({self.epoch})"

    def step(self, instant: str) -> bool:
        """Do the next thing. Return False if nothing is left to do, so that the run ends."""
        if self.to_send:
            self.send(self.to_send.pop(0))
            return True
        if self.in_progress and instant in REPLIES:
            self.replies.append((self.in_progress.pop(len(self.in_progress) // 2), instant))
            return True
        if self.superseded:
            return self.write_late_answers()
        try:
            return self.write_turn(instant)
        except StaleEpochError:
            self.superseded = True
            return True

    def send(self, work: Work) -> None:
        # This may come late, from a run that was believed dead. Even then it sends its intent once or never.
        if self.store.cancel_written:
            self.replies.append((work, "unsent"))
            return
        if isinstance(work, ModelQuestion):
            self.store.world.receive_question(work.step_id, work.turn, self.epoch)
        else:
            self.store.world.receive(work)
        self.in_progress.append(work)

    def write_turn(self, instant: str) -> bool:
        """Write the outcomes of calls, what follows from them, and the next intents, in one append."""
        for work, reply in self.replies:
            self.stage_outcome(work, reply)
        self.replies.clear()
        if instant == "outdated" and self.may_be_repinned:
            self.stage(repin_plan(self.task))
        if instant == "asks":
            self.ask_person()
        elif instant == "silence":
            self.withdraw_questions()
        begun = self.propose_strays() if instant == "stray" else []
        begun += self.decide(begun, instant=instant)
        if not self.staged:  # a request to a model may need no event
            self.to_send = begun
            return bool(begun or self.in_progress)
        try:
            self.committed = self.store.append(self.committed, *self.staged, epoch=self.epoch)
        except ConflictError:
            self.catch_up()
            return True
        self.task, self.staged = self.committed, []
        self.to_send = begun
        return True

    def ask_person(self) -> None:
        """Stage a question of the server in the first open call that has none."""
        if self.task.status not in ev.InputRequested.follows or self.task.cancel_requested:
            return
        for work in self.in_progress:
            state = self.task.steps[work.step_id]
            call = state.open_call
            if isinstance(work, ev.ToolCalled) and call and call.call_id == work.call_id and not state.question:
                parts = {"step_id": work.step_id, "call_id": work.call_id, "server": work.server, "tool": work.tool}
                schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
                question_id = f"q{next(self.call_numbers)}"
                self.stage(
                    ev.InputRequested(**parts, question_id=question_id, message="How many?", requested_schema=schema)
                )
                return

    def withdraw_questions(self) -> None:
        """Withdraw the questions of this run's calls, whose time is over."""
        for step_id, asked in self.task.questions.items():
            if step_id in self.busy:
                self.stage(ev.InputWithdrawn(step_id=step_id, question_id=asked.question_id, reason="silence"))

    @property
    def may_be_repinned(self) -> bool:
        task = self.task
        return task.status is TaskStatus.EXECUTING and not task.has_begun and not task.cancel_requested

    def catch_up(self) -> None:
        """Read the current state after a conflict. Staged answers are staged again."""
        self.task = self.committed = self.store.task
        if self.task.epoch != self.epoch:
            raise StaleEpochError("a newer run owns the task")
        answers, self.staged = self.staged_answers, []
        if not self.task.terminal:
            self.stage(*answers)

    @property
    def staged_answers(self) -> list[ev.ToolReturned | ev.ModelAnswered]:
        return [event for event in self.staged if isinstance(event, ev.ToolReturned | ev.ModelAnswered)]

    def write_late_answers(self) -> bool:
        late = [_make_result(call, reply) for call, reply in self.replies if isinstance(call, ev.ToolCalled)]
        answers = [answer for answer in (*self.staged_answers, *late) if isinstance(answer, ev.ToolReturned)]
        if not self.store.task.terminal and answers:
            before = self.store.task
            after = self.store.append(before, *answers, epoch=self.epoch)
            self.store.late_answers += len(answers)
            assert (after.steps, after.status) == (before.steps, before.status), "a late answer changed the state"
        self.staged, self.replies = [], []
        return bool(self.in_progress)

    def stage(self, *events: ev.Event) -> None:
        for event in events:
            self.task = evolve(self.task, ev.EventRecord("t", self.task.version + 1, self.epoch, AT, event, ""))
            self.staged.append(event)

    def stage_outcome(self, work: Work, reply: str) -> None:
        if isinstance(work, ModelQuestion):
            if self.task.terminal:
                return
            if reply not in {"error", "busy", "lost", "unsent"}:
                self.stage(make_answer(work.step, work.turn, reply))
            elif reply != "unsent" and self.task.status is TaskStatus.EXECUTING and not self.task.cancel_requested:
                self.stage(ev.StepFailed(step_id=work.step_id, code="model_error", message=reply))
        elif returned := _make_result(work, reply):
            self.stage(returned)
        elif self.store.cancel_written or not may_repeat(self.task, work.step_id):
            self.stage(ev.StepOutcomeUnknown(step_id=work.step_id, call_id=work.call_id, reason="lost"))

    def decide(self, strays: list[Work], *, instant: str) -> list[Work]:
        begun: list[Work] = []
        while not self.has_stopped and self.may_act:
            busy = self.busy | {work.step_id for work in (*strays, *begun)}
            if self.blocked_step and not busy:
                self.give_up(self.blocked_step)
                continue
            wanted = () if self.blocked_step else commands.next_commands(self.task, busy)
            match wanted[0] if wanted else None:
                case WriteEvents(events):
                    self.stage(*events)
                case ProposePlan():
                    self.has_stopped = True
                    self.stage(*self.plan_events(fails=instant in {"error", "lost", "silence"}))
                case OutlastOutage(step):
                    if busy:
                        break
                    self.blocked_step, self.is_down = step, True
                case AskModel(step) if len(busy) < self.max_parallel:
                    begun.append(self.start_turn(step))
                case CallTool(step) if len(busy) < self.max_parallel:
                    is_blocked, self.is_down = instant in {"changed", "down"}, instant == "down"
                    self.blocked_step = step if is_blocked else None
                    begun += [] if is_blocked else self.intend(step, busy)
                case _:
                    break
        return begun

    @property
    def may_act(self) -> bool:
        task = self.task
        return bool(task.status in _RUNNABLE or task.cancel_requested or task.questions.keys() - self.busy)

    @property
    def busy(self) -> set[str]:
        return {work.step_id for work in self.in_progress}

    def plan_events(self, *, fails: bool) -> list[ev.Event]:
        """Return the next revision, with the policy's approval if the task requests it. `fails`: there is no other."""
        if fails and self.task.contract:
            return [fail_planning(self.task, "planning_refused", "m")]
        revision = self.task.plan_revision + 1
        contract = self.draft_contract(revision)
        proposed = ev.PlanProposed(
            revision=revision,
            digest=contract.digest,
            contract=contract,
            definitions={key: CATALOGUE[key].definition for key in contract.pins},
            planner="rules",
        )
        approved = ev.PlanApproved(revision=revision, digest=contract.digest, actor=ev.POLICY)
        return [proposed, approved] if self.task.approval == "auto" and not self.task.feedback else [proposed]

    def start_turn(self, step: AgentStep) -> ModelQuestion:
        state = self.task.steps[step.id]
        if state.status is StepStatus.PENDING:
            self.stage(ev.StepStarted(step_id=step.id, title=step.title))
        return ModelQuestion(step, len(state.turns) + 1)

    def intend(self, step: ToolStep | AgentStep, busy: set[str]) -> list[Work]:
        """Stage the next call, the question to a person, or the consequences of a refusal. Return the call to send."""
        proposal = next_proposal(self.task, step)
        try:
            return self.propose(proposal, busy)
        except CallRefusedError as refusal:
            lost = self.task.open_calls.get(step.id)
            if self.task.status in ev.ToolDenied.follows:
                self.stage(_make_denial(proposal, refusal, None if lost else proposal.pending))
            if lost:
                self.stage(ev.StepOutcomeUnknown(step_id=step.id, call_id=lost.call_id, reason=str(refusal)))
            elif isinstance(step, ToolStep):
                self.stage(ev.StepFailed(step_id=step.id, code=refusal.rule, message=str(refusal)))
            return []

    def propose(self, proposal: Proposal, busy: set[str]) -> list[Work]:
        """Have the rules judge a proposal, and stage what they permit. Raises: CallRefusedError."""
        permitted = call_rules.judge(self.task, proposal, busy, (), call_rules.Bounds(1))
        state = self.task.steps[proposal.step_id]
        asked = state.asked if permitted.attempt == 1 else None
        arguments = permitted.arguments if proposal.arguments is None else proposal.arguments
        parts = {
            "step_id": proposal.step_id,
            "call_id": asked.call_id if asked else f"c{next(self.call_numbers)}",
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
        """Stage what the rules permit. The journal must accept it; if not, report which guarantee it breaks."""
        for number, event in enumerate(events):
            try:
                self.stage(event)
            except IllegalTransitionError as refusal:
                world = World()
                for record in self.store.records[: self.committed.version]:  # up to the version that this run has read
                    world.read(record)
                for more in (*self.staged, *events[number:]):
                    world.read(ev.make_record("t", 1, self.epoch, AT, more))
                wrong = world.breaches or [f"G3: the rules permit what the journal refuses: {refusal}"]
                self.store.world.breaches += wrong[:1]
                raise CrashError from refusal

    def propose_strays(self) -> list[Work]:
        """Propose stray calls, and ignore refusals."""
        begun: list[Work] = []
        for step in self.task.contract.steps if self.task.contract else ():
            for proposal in _stray_proposals(step, self.task.steps[step.id].pending):
                try:
                    begun += self.propose(proposal, self.busy | {work.step_id for work in begun})
                except CallRefusedError:
                    continue
        return begun

    def wait(self) -> ev.TaskWaiting:
        """Return the event which says that the task waits for its server."""
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
        """Give up a blocked step: wait for its server; if its tools changed, fail the task or ask about open calls."""
        self.blocked_step = None
        if self.is_down and all(may_outlast(self.task, call) for call in self.task.open_calls.values()):
            self.has_stopped = True
            self.stage(self.wait())
            return
        open_calls = self.task.open_calls
        for name, call in open_calls.items():
            self.stage(ev.StepOutcomeUnknown(step_id=name, call_id=call.call_id, reason="the tools have changed"))
        if not open_calls:
            changed = CallRefusedError("changed", "m")
            denied = _make_denial(next_proposal(self.task, step), changed, None)
            self.stage(denied, ev.TaskFailed(code="changed", message="m", step_id=step.id))


def repin_plan(task: Task) -> ev.PlanRepinned:
    """Return the event that makes the plan for another server the next revision."""
    assert task.contract
    contract = repin(task.contract)
    return ev.PlanRepinned(
        revision=task.plan_revision + 1,
        digest=contract.digest,
        contract=contract,
        definitions={key: CATALOGUE[key].definition for key in contract.pins},
    )


def _stray_proposals(step: ToolStep | AgentStep, pending: PendingCall | None) -> Iterator[Proposal]:
    """Yield calls of a step that are not its next one, and the next one with missing or wrong parts."""
    for key in CATALOGUE:
        server, tool = key.split("/")
        yield Proposal(step.id, server, tool, {"n": 99})
        yield Proposal(step.id, server, tool)
        if isinstance(step, AgentStep):
            yield Proposal(step.id, server, tool, {"n": 2}, pending)
            if pending:
                yield Proposal(step.id, server, tool, pending=replace(pending, index=pending.index + 1))
    yield Proposal(step.id + "x", "f", "look")


def _make_denial(proposal: Proposal, refusal: CallRefusedError, pending: PendingCall | None) -> ev.ToolDenied:
    return ev.ToolDenied(
        step_id=proposal.step_id,
        server=proposal.server,
        tool=proposal.tool,
        rule=refusal.rule,
        message=str(refusal),
        turn=pending.turn if pending else None,
        index=pending.index if pending else None,
    )


def _make_result(call: ev.ToolCalled, reply: str) -> ev.ToolReturned | None:
    unsent = StoredResult(text="the task was cancelled", is_error=True)
    result = unsent if reply == "unsent" else RESULTS.get(reply, RESULTS["good"])
    if result is None:
        return None
    return ev.ToolReturned(step_id=call.step_id, call_id=call.call_id, result=result, duration_ms=1)
