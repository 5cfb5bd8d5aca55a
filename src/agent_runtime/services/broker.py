"""The only path from a task to the tools (G2, G5, G6).

Every call is checked against the approved contract and becomes an `Intent`. Once the intent is in the journal, the call
is sent, once. The result is an `Outcome`, which is written to the journal too.
"""

import asyncio
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from agent_runtime.config import LimitSettings
from agent_runtime.domain.budget import seconds_left
from agent_runtime.domain.call_rules import Bounds, CallRefusedError, PermittedCall, Proposal, judge
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    CallNotSentError,
    DefinitionChangedError,
    OutcomeUnknownError,
    ServerUnavailableError,
    SessionLostError,
)
from agent_runtime.domain.events import (
    CallApprovalRequested,
    StepOutcomeUnknown,
    StepStarted,
    ToolCalled,
    ToolDenied,
    ToolReturned,
)
from agent_runtime.domain.identity import compare_pins
from agent_runtime.domain.kept_results import fit_result, make_unsent
from agent_runtime.domain.patience import CALL_S
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.task import Call, PendingCall, StepStatus, Task, may_repeat
from agent_runtime.domain.tools import StoredResult
from agent_runtime.live.call_patience import CallPatience
from agent_runtime.live.identifiers import new_id
from agent_runtime.live.interruption import run_until
from agent_runtime.live.patience import Patience
from agent_runtime.live.progress import Progress
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.services.ports import ConfirmClaims, Lease
from agent_runtime.services.run import Run
from agent_runtime.telemetry import log_debug

log = structlog.get_logger()

_SHORTEST_CALL_S = 0.001


class Broker:
    """Sends the calls of approved steps. A call is sent again only if the operator called its tool idempotent.

    Where other processes may run the same tasks, `confirm_claims` is asked right before each call is sent.
    """

    def __init__(
        self,
        limits: LimitSettings,
        current: CurrentRegistry,
        pauses: Pauses = Pauses(),  # noqa: B008 - a frozen value
        progress: Progress | None = None,
        confirm_claims: ConfirmClaims | None = None,
    ) -> None:
        self._limits = limits
        self._current = current
        self._pauses = pauses
        self._progress = progress or Progress()
        self._confirm_claims = confirm_claims
        self._slots = asyncio.Semaphore(limits.concurrent_calls)

    def check_identities(self, task: Task) -> None:
        """Compare the current servers and model with the contract (G6). Raises: DefinitionChangedError."""
        differences = self._current.identities.differences(task.contract, task.identities) if task.contract else []
        if differences:
            raise DefinitionChangedError(
                "Servers or the model have changed since the plan was approved, so nothing was called. "
                + " ".join(differences)
            )

    async def check_pins(self, task: Task, lease: Lease, server_ids: Iterable[str]) -> None:
        """Compare the tools that the leased sessions list now with the contract (G6).

        Raises: DefinitionChangedError, ServerUnavailableError.
        """
        for server_id in server_ids:
            current = await lease.definitions(server_id)
            if task.contract:
                identity = self._current.identities.servers.get(server_id)
                of_form_1 = identity.of_form_1 if identity else {}
                compare_pins(task.contract, server_id, of_form_1, task.definitions, current)

    async def acquire_slot(self, run: Run, step_id: str) -> bool:
        """Wait for one of the slots for calls (`limits.concurrent_calls`), and return True once this step holds one.

        A repetition first waits a growing pause with jitter, so that many are not sent at the same moment.
        Give the slot back with `release_slot`. Return False once the task is cancelled or the service stops.
        """
        call = run.task.steps[step_id].call
        if call is None and self.has_free_slot:
            return await self._slots.acquire()
        if call is not None:
            await run_until(asyncio.sleep(self._compute_pause_s(call)), run.cancel, run.stop)
        return bool(await run_until(self._slots.acquire(), run.cancel, run.stop))

    def _compute_pause_s(self, call: Call) -> float:
        """Return the pause before the repetition of a call; 0 if the task has waited for it."""
        tries = call.attempt - call.waited
        asked_s = call.result.retry_after_s if call.result else None
        return max(self._pauses.before_repetition(tries), asked_s or 0.0) if tries else 0.0

    @property
    def has_free_slot(self) -> bool:
        """True if a first call can be sent without waiting for a slot."""
        return not self._slots.locked()

    def release_slot(self) -> None:
        self._slots.release()

    def intend(self, run: Run, proposal: Proposal, in_flight: AbstractSet[str]) -> "Intent | None":
        """Check a proposed call against contract and journal; stage and return the intent to send it.

        Return None where a person must approve the concrete arguments first; that question is staged instead.
        `in_flight` are the steps whose calls are under way.
        Raises: CallRefusedError where a rule forbids the call. The denial is staged too, unless the task has ended or a
        newer run owns it, because such a journal takes no more events.
        """
        try:
            permitted = self.judge(run.task, proposal, in_flight)
        except CallRefusedError as refusal:
            self._deny(run, proposal, refusal)
            raise
        step, state = permitted.step, run.task.steps[proposal.step_id]
        place = _turn_and_index(state.pending)
        if permitted.reason is not None:
            run.stage(
                CallApprovalRequested(
                    step_id=step.id,
                    call_id=new_id("call"),
                    server=proposal.server,
                    tool=proposal.tool,
                    arguments=permitted.arguments,
                    arguments_digest=permitted.arguments_digest,
                    reason=permitted.reason,
                    **place,
                )
            )
            return None
        asked = state.asked if permitted.attempt == 1 else None
        left_s = seconds_left(run.charged_task, in_flight)
        called = ToolCalled(
            step_id=step.id,
            call_id=asked.call_id if asked else new_id("call"),
            server=proposal.server,
            tool=proposal.tool,
            arguments=permitted.arguments,
            arguments_digest=permitted.arguments_digest,
            attempt=permitted.attempt,
            timeout_s=max(_SHORTEST_CALL_S, min(permitted.timeout_s or CALL_S, left_s)),
            **place,
        )
        if state.status is StepStatus.PENDING:
            run.stage(StepStarted(step_id=step.id, title=step.title))
        run.stage(called)
        return Intent(called, permitted.longest_s)

    def judge(self, task: Task, proposal: Proposal, in_flight: AbstractSet[str]) -> PermittedCall:
        """Return the call that plan and operator permit now. Raises: CallRefusedError."""
        limits = self._limits
        return judge(
            task,
            proposal,
            in_flight,
            self._current.rules.denials(proposal.server),
            Bounds(limits.stored_result_bytes, limits.argument_bytes, limits.journal_bytes),
            now=self._current.rules.tighten_contract(task.contract, task.definitions) if task.contract else None,
        )

    async def send(
        self, run: Run, lease: Lease, intent: "Intent", in_flight: AbstractSet[str] = frozenset()
    ) -> "Outcome":
        """Send a call whose intent is in the journal, once, and return its outcome. Stages nothing.

        If the server has announced a change of its tools since, they are compared with the pins again first.
        `in_flight` are the steps under way; the caller keeps it up to date while this call lasts. A call that reports
        progress gets no seconds that those steps have reserved.
        """
        began = time.perf_counter()
        answered, trouble, reason = True, None, ""
        result: StoredResult | None = None
        outage: AgentRuntimeError | None = None
        try:
            server_id = intent.called.server
            if lease.has_changed(server_id):  # the intent may have waited for the store
                await run_until(self.check_pins(run.task, lease, [server_id]), run.cancel)
            patience = CallPatience(run, intent.called, intent.longest_s, in_flight, self._progress)
            result = await self._dispatch_in_session(run, lease, intent, patience)
        except CallNotSentError as error:
            answered, result = False, make_unsent(error, unsent=not run.cancel.is_set())
        except (DefinitionChangedError, ServerUnavailableError) as error:
            result = make_unsent(error, unsent=error.may_pass)
            answered, trouble = not error.may_pass, None if error.may_pass else error
        except OutcomeUnknownError as error:
            log.warning("outcome_unknown", task_id=run.task.task_id, step_id=intent.step_id, reason=str(error))
            answered, reason, outage = False, str(error), error if error.may_pass else None
        duration_ms = 0.0 if trouble else round((time.perf_counter() - began) * 1000, 3)
        if result is not None and result.images:  # they are durable before the event that names them
            result = await run.save_images(result, self._limits.task_image_bytes)
        kept = fit_result(result, self._limits.stored_result_bytes) if result else None
        return Outcome(intent, kept, duration_ms, answered=answered, reason=reason, trouble=trouble, outage=outage)

    async def _dispatch_in_session(self, run: Run, lease: Lease, intent: "Intent", patience: Patience) -> StoredResult:
        """Send a call. If the server does not know the session, open a new one and send the call once more.

        A server that does not know the session has not looked at the call (MCP, streamable HTTP, session management).
        """
        try:
            return await self._dispatch(run, lease, intent, patience)
        except SessionLostError as lost:
            log.info("session_lost", task_id=run.task.task_id, server=intent.called.server, reason=str(lost))
        server_id = intent.called.server
        await run_until(lease.renew(server_id), run.cancel)
        await run_until(self.check_pins(run.task, lease, [server_id]), run.cancel)
        return await self._dispatch(run, lease, intent, patience)

    async def _dispatch(self, run: Run, lease: Lease, intent: "Intent", patience: Patience) -> StoredResult:
        if self._confirm_claims is not None and (not await self._confirm_claims() or run.stop.is_set()):
            raise CallNotSentError("The call was not sent: another process may run this task by now.", may_pass=True)
        if run.cancel.is_set():
            raise CallNotSentError("The task was cancelled before the call was sent.")
        called = intent.called
        here = {"step_id": called.step_id, "call_id": called.call_id, "server": called.server, "tool": called.tool}
        log_debug("call_sent", **here, attempt=called.attempt, timeout_s=called.timeout_s)
        result = await lease.call(
            called.server,
            called.tool,
            called.arguments,
            timeout_s=called.timeout_s,
            cancel=run.cancel,
            patience=patience,
        )
        log_debug("call_answered", **here, is_error=result.is_error, characters=len(result.text))
        return result

    @staticmethod
    def _deny(run: Run, proposal: Proposal, refusal: CallRefusedError) -> None:
        task = run.task
        pending = None if proposal.step_id in task.open_calls else proposal.pending
        log.warning("call_refused", task_id=task.task_id, step_id=proposal.step_id, rule=refusal.rule)
        if task.status in ToolDenied.follows:
            run.stage(
                ToolDenied(
                    step_id=proposal.step_id,
                    server=proposal.server,
                    tool=proposal.tool,
                    rule=refusal.rule,
                    message=str(refusal),
                    **_turn_and_index(pending),
                )
            )


@dataclass(frozen=True, slots=True)
class Intent:
    """A call that is sent once its intent is in the journal. While it reports progress it may take `longest_s`."""

    called: ToolCalled
    longest_s: float

    @property
    def step_id(self) -> str:
        return self.called.step_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a call. `result` is None where it is unknown; `reason` says why.

    `answered` is False if the next call needs new sessions, because this server gave no answer. `trouble` is set if
    nothing was sent, because the server's tools are no longer those of the plan or the server cannot be asked.
    `outage`: why there is no answer, if that may pass.
    """

    intent: Intent
    result: StoredResult | None
    duration_ms: float
    answered: bool
    reason: str
    trouble: AgentRuntimeError | None
    outage: AgentRuntimeError | None = None

    @property
    def step_id(self) -> str:
        return self.intent.step_id

    @property
    def returned(self) -> ToolReturned | None:
        """The answer as an event for the journal."""
        if self.result is None:
            return None
        step_id, call_id = self.step_id, self.intent.called.call_id
        return ToolReturned(step_id=step_id, call_id=call_id, result=self.result, duration_ms=self.duration_ms)

    def stage(self, run: Run) -> None:
        """Stage the answer. If there is none and the call may not be repeated, stage a question to a person."""
        step_id, call_id = self.step_id, self.intent.called.call_id
        if self.returned is not None:
            run.stage(self.returned)
        elif run.cancel.is_set() or not may_repeat(run.task, step_id):
            run.stage(StepOutcomeUnknown(step_id=step_id, call_id=call_id, reason=self.reason))


def _turn_and_index(pending: PendingCall | None) -> dict[str, int]:
    """Return the model's turn and the index of the call in its answer; empty where no model asked for the call."""
    return {"turn": pending.turn, "index": pending.index} if pending else {}
