"""The one door to the tools (G2, G5, G6).

Every call goes through `Broker.call`, which holds it against the approved contract, writes the intent, sends it
once and writes what came of it.
"""

import asyncio
import time
from collections.abc import Mapping

import structlog
from pydantic_core import PydanticSerializationError, from_json, to_json

from agent_runtime.config import LimitSettings
from agent_runtime.domain.contract import Contract, argument_faults, compare_pins
from agent_runtime.domain.errors import (
    CallNotSentError,
    DefinitionChangedError,
    OutcomeUnknownError,
    ReferenceFailedError,
    ServerUnavailableError,
)
from agent_runtime.domain.events import (
    StepFailed,
    StepOutcomeUnknown,
    StepStarted,
    ToolCalled,
    ToolDenied,
    ToolReturned,
)
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import resolve
from agent_runtime.domain.task import StepStatus, Task, may_repeat
from agent_runtime.domain.tools import StoredResult, ToolServer, tool_key
from agent_runtime.domain.values import JsonObject, deeper_than, digest, digest_of_bytes
from agent_runtime.services.identifiers import new_id
from agent_runtime.services.ports import Lease
from agent_runtime.services.run import Run, unless

log = structlog.get_logger()

MOST_RESULT_DEPTH = 100
"""How deep the output of a call may be nested: with the arguments it is put into (64 at most) it can still be read
back from the journal, where JSON ends at 200."""

_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 5.0


class CallRefusedError(Exception):
    """A rule forbids a call; it is not sent. `rule` names it in the journal."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Broker:
    """Sends the calls of approved steps, each at most once where the operator did not call its tool idempotent."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits

    async def check_pins(self, task: Task, lease: Lease, servers: Mapping[str, ToolServer]) -> None:
        """Hold what the leased sessions list now, and what the operator says now, against the contract (G6).

        Raises: DefinitionChangedError, ServerUnavailableError.
        """
        for server_id, server in servers.items():
            current = await lease.definitions(server_id)
            if task.contract:
                _check_policy(task.contract, server)
                compare_pins(task.contract, server_id, server.identity, task.definitions, current)

    async def pause(self, run: Run, step: ToolStep) -> None:
        """Before a repetition: what is known is committed, and a moment passes unless the task is cancelled.

        Raises: ConflictError, StaleEpochError.
        """
        call = run.task.steps[step.id].call
        if call is not None:
            await run.commit()
            pause_s = min(_BACKOFF_S * 2 ** (call.attempt - 1), _LONGEST_BACKOFF_S)
            await unless(asyncio.sleep(pause_s), run.cancel, run.stop)

    async def call(self, run: Run, lease: Lease, step: ToolStep, server: ToolServer) -> bool:
        """Send the call of a step and stage what came of it: a result, a refusal, or that the outcome is unknown.

        Returns False where the server gave no answer. Raises: ConflictError, StaleEpochError where the intent could
        not be written, DefinitionChangedError, ServerUnavailableError where the server said meanwhile that its tools
        changed; nothing was sent then.
        """
        try:
            arguments, arguments_digest = self._arguments(run.task, step)
        except CallRefusedError as refusal:
            self._refuse(run, step, refusal)
            return True
        call = run.task.steps[step.id].call
        attempt = 1 if call is None else call.attempt + 1
        call_id = new_id("call")
        run.stage(
            *([StepStarted(step_id=step.id, title=step.title)] if attempt == 1 and self._is_fresh(run, step) else []),
            ToolCalled(
                step_id=step.id,
                call_id=call_id,
                server=step.server,
                tool=step.tool,
                arguments=arguments,
                arguments_digest=arguments_digest,
                attempt=attempt,
            ),
        )
        await run.commit()
        if lease.has_changed(step.server):  # a store that was unavailable may have kept the intent waiting
            await self._check_again(run, lease, step, server, call_id)
        return await self._send(run, lease, step, call_id, arguments)

    async def _check_again(self, run: Run, lease: Lease, step: ToolStep, server: ToolServer, call_id: str) -> None:
        try:
            await unless(self.check_pins(run.task, lease, {step.server: server}), run.cancel)
        except (DefinitionChangedError, ServerUnavailableError) as error:
            result = keep(StoredResult(text=str(error), is_error=True), self._limits.stored_result_bytes)
            run.stage(ToolReturned(step_id=step.id, call_id=call_id, result=result, duration_ms=0.0))
            raise

    @staticmethod
    def _is_fresh(run: Run, step: ToolStep) -> bool:
        return run.task.steps[step.id].status is StepStatus.PENDING

    def _arguments(self, task: Task, step: ToolStep) -> tuple[JsonObject, str]:
        """The concrete arguments and their digest, judged in full now that every reference has its value."""
        key = tool_key(step.server, step.tool)
        definition = task.definitions.get(key)
        if task.contract is None or key not in task.contract.pins or definition is None:
            raise CallRefusedError("not_in_plan", f"{key!r} is not a tool of the approved plan.")
        try:
            arguments: JsonObject = resolve(step.arguments, task.results, self._limits.stored_result_bytes)
            arguments_digest = digest(arguments)
        except ReferenceFailedError as error:
            raise CallRefusedError("reference_failed", str(error)) from error
        except ValueError as error:
            raise CallRefusedError("invalid_arguments", f"An argument cannot be carried exactly: {error}.") from error
        faults = list(argument_faults(arguments, definition.inputSchema, "arguments", resolved=True))
        if faults:
            raise CallRefusedError("invalid_arguments", "; ".join(map(str, faults)))
        return arguments, arguments_digest

    @staticmethod
    def _refuse(run: Run, step: ToolStep, refusal: CallRefusedError) -> None:
        log.warning("call_refused", task_id=run.task.task_id, step_id=step.id, rule=refusal.rule)
        message = f"{step.server}.{step.tool} was not called: {refusal}"
        denied = ToolDenied(
            step_id=step.id, server=step.server, tool=step.tool, rule=refusal.rule, message=str(refusal)
        )
        run.stage(denied, StepFailed(step_id=step.id, code=refusal.rule, message=message))

    async def _send(self, run: Run, lease: Lease, step: ToolStep, call_id: str, arguments: JsonObject) -> bool:
        answered = True
        began = time.perf_counter()
        timeout_s = self._timeout_s(run.task, step)
        try:
            result = await self._dispatch(lease, step, arguments, timeout_s, run.cancel)
        except CallNotSentError as error:
            answered = False
            result = StoredResult(text=str(error), is_error=True)
        except OutcomeUnknownError as error:
            log.warning("outcome_unknown", task_id=run.task.task_id, step_id=step.id, reason=str(error))
            if run.cancel.is_set() or not may_repeat(run.task, step.id):
                run.stage(StepOutcomeUnknown(step_id=step.id, call_id=call_id, reason=str(error)))
            return False
        duration_ms = round((time.perf_counter() - began) * 1000, 3)
        kept = keep(result, self._limits.stored_result_bytes)
        run.stage(ToolReturned(step_id=step.id, call_id=call_id, result=kept, duration_ms=duration_ms))
        return answered

    @staticmethod
    async def _dispatch(
        lease: Lease, step: ToolStep, arguments: JsonObject, timeout_s: float, cancel: asyncio.Event
    ) -> StoredResult:
        if cancel.is_set():
            raise CallNotSentError("The task was cancelled before the call was sent.")
        return await lease.call(step.server, step.tool, arguments, timeout_s=timeout_s, cancel=cancel)

    @staticmethod
    def _timeout_s(task: Task, step: ToolStep) -> float:
        timeout_s = step.timeout_s or 60.0
        budget = task.limits.budget.seconds
        return timeout_s if budget is None else max(0.001, min(timeout_s, budget - task.call_seconds))


def _check_policy(contract: Contract, server: ToolServer) -> None:
    """The operator's newer word counts where it is the stricter one."""
    for key in contract.pins:
        name = key.partition("/")[2]
        if key == tool_key(server.id, name):
            said = server.policy_for(name)
            if said.enabled is False:
                raise DefinitionChangedError(f"{key} is now disabled in the tool registry, so it was not called.")
            if said.approval == "call" and contract.policy[key].approval != "call":
                raise DefinitionChangedError(
                    f"{key} now asks for approval of each concrete call in the tool registry, so it was not called."
                )


def keep(result: StoredResult, limit: int) -> StoredResult:
    """A result as the journal can hold it and read it back: valid UTF-8 and JSON, cut where it is over `limit` bytes.

    An output that is no JSON, or nested deeper than `MOST_RESULT_DEPTH`, is cut too.
    """
    text = result.text.encode("utf-8", "replace")
    output = b""
    try:
        if result.output is not None:
            output = to_json(result.output, inf_nan_mode="null")
        fits = len(text) + len(output) <= limit and not deeper_than(result.output, MOST_RESULT_DEPTH)
        value = from_json(output) if output and fits else None
    except (PydanticSerializationError, ValueError, RecursionError):
        fits = False
    if not fits:
        return _cut(result, text, output, limit)
    return result.model_copy(update={"text": text.decode(), "output": value, "size": len(text) + len(output)})


def _cut(result: StoredResult, text: bytes, output: bytes, limit: int) -> StoredResult:
    update = {
        "text": text[:limit].decode("utf-8", "ignore"),
        "output": None,
        "cut": True,
        "size": len(text) + len(output),
        "digest": digest_of_bytes(text + output),
    }
    return result.model_copy(update=update)
