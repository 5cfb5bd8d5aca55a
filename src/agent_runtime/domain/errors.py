"""Every error that the service raises on purpose.

AgentRuntimeError
|- InvalidInputError            the caller's input is wrong; every fault is named
|  `- InvalidPlanError          the plan is wrong; every fault is named
|- TaskNotFoundError            no such task
|- ImageNotFoundError           the task has kept no such image
|- StateNotFoundError           a front end has saved no such state
|- StateChangedError            the state is not at the revision that the caller has read
|- StateTooLargeError           the state is over the limit
|- CallNotFoundError            the task asks for no such call
|- QuestionNotFoundError        no server asks this question
|- ScopeMissingError            the caller's key does not have the scope that this takes
|- DecisionRefusedError         the task is in a status that does not allow the decision
|  |- JournalChangedError       the task's journal is not as it was written
|  |- DigestRequiredError       the decision must name the digest of the plan
|  |- RerunTooLargeError        the results that a rerun would reuse are over the limit
|  |- PlanOutdatedError         the servers or the model are not what the plan was made for
|  `- DigestMismatchError       the decision names another plan than the current one
|     `- EditOutdatedError      a plan was edited that is not the current one any more
|- RequestKeyReusedError        an idempotency key was reused with another body
|- IllegalTransitionError       an event may not follow the task's journal
|- ConflictError                the journal has grown since it was read
|- StaleEpochError              a newer claim owns the task
|- StoreUnavailableError        the journal cannot be written or read now
|  `- StoreClosedError          the same, because the service stops
|- ConfigurationError           a file or variable of the operator is wrong
|  |- RegistryInvalidError      the tool registry is wrong; every fault is named
|  `- AlreadyOwnedError         another process owns the database or the data directory
|- RegistryFaultyError          a changed tool registry was not put in force, because it is wrong
|- PlanningError                the planner cannot or will not plan this
|  |- MissingToolError          no tool that is known can do what the prompt asks for
|  `- ServersDownError          the same, but servers are down that may have the tool
|- ModelError                   a language model gave no usable answer
|- ServerUnavailableError       an MCP server cannot be started or reached
|- DefinitionChangedError       a tool is not what the plan was made with
|- ReferenceFailedError         a reference in a plan has no usable value
|- ConditionFailedError         a condition in a plan cannot be evaluated
|- CallNotSentError             a call was certainly not delivered
|  `- SessionLostError          the server lost the session and did not process the call
`- OutcomeUnknownError          a call was sent and its outcome is not known
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input: its place (`steps[0].arguments.path`) and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class AgentRuntimeError(Exception):
    """The base of all errors that the service raises on purpose. `str(error)` can be shown to users."""

    code = "internal_error"
    may_pass = False
    """Whether it is an outage of something else, which may work again by itself."""
    retry_after_s = 0.0
    """How many seconds whoever is down has asked to be left alone."""
    exit_mark: str | None = None
    """A text about how a process ended, the same for the same end; None where none ended by itself."""


class InvalidInputError(AgentRuntimeError):
    """The caller's input is wrong; nothing was changed. `faults` names each fault and its place."""

    code = "invalid_input"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class InvalidPlanError(InvalidInputError):
    """A plan breaks a rule of the contract; nothing was changed."""

    code = "invalid_plan"


class TaskNotFoundError(AgentRuntimeError):
    """There is no task of this id."""

    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"There is no task {task_id!r}.")
        self.task_id = task_id


class ImageNotFoundError(AgentRuntimeError):
    """No result of the task has an image with this digest that is kept."""

    code = "image_not_found"

    def __init__(self, task_id: str, digest: str) -> None:
        super().__init__(f"Task {task_id!r} has no image {digest[:100]!r}.")


class StateNotFoundError(AgentRuntimeError):
    """There is no state of this agent and thread, or it has expired."""

    code = "state_not_found"

    def __init__(self, agent: str, thread: str) -> None:
        super().__init__(f"There is no state of the agent {agent!r} for the thread {thread!r}.")


class StateChangedError(AgentRuntimeError):
    """The state is not as the caller expects; nothing was written. `revision` is the current one, None if there is no
    state.
    """

    code = "state_changed"

    def __init__(self, agent: str, thread: str, revision: str | None) -> None:
        now = "there is none" if revision is None else f"its revision is {revision}"
        super().__init__(
            f"The state of the agent {agent!r} for the thread {thread!r} is not the expected one: {now}. "
            "Load it again, and save your change of that."
        )
        self.revision = revision


class StateTooLargeError(AgentRuntimeError):
    """The state is over `limits.state_bytes`; nothing was written."""

    code = "state_too_large"


class CallNotFoundError(AgentRuntimeError):
    """The task has asked for no call of this id."""

    code = "call_not_found"


class QuestionNotFoundError(AgentRuntimeError):
    """No server has asked this question in a call of the task."""

    code = "question_not_found"


class ScopeMissingError(AgentRuntimeError):
    """The caller lacks the required scope; nothing was changed. `scope` would suffice."""

    code = "scope_missing"

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class DecisionRefusedError(AgentRuntimeError):
    """The task's status does not allow the decision; nothing was changed."""

    code = "decision_refused"

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class JournalChangedError(DecisionRefusedError):
    """The task's journal is not as it was written: the task can only be deleted."""

    code = "journal_changed"


class DigestRequiredError(DecisionRefusedError):
    """The decision must name the digest of the plan (G4)."""

    code = "digest_required"


class RerunTooLargeError(DecisionRefusedError):
    """The results that a rerun would reuse are over the limit; nothing was created."""

    code = "rerun_too_large"


class PlanOutdatedError(DecisionRefusedError):
    """A server or the model is not what the plan was made for (G6); the approval was not taken."""

    code = "plan_outdated"


class DigestMismatchError(DecisionRefusedError):
    """The decision names the digest of another plan than the one that now awaits approval (G4)."""

    code = "digest_mismatch"


class EditOutdatedError(DigestMismatchError):
    """The edit was made on another plan than the one that now awaits approval; nothing was changed."""

    code = "edit_outdated"


class RequestKeyReusedError(AgentRuntimeError):
    """An `Idempotency-Key` was reused with a different body."""

    code = "idempotency_key_reused"


class IllegalTransitionError(AgentRuntimeError):
    """An event may not follow the journal it was to be appended to; nothing was written."""

    code = "illegal_transition"


class ConflictError(AgentRuntimeError):
    """The journal has grown since the caller read it: read it again and decide again."""

    code = "conflict"


class StaleEpochError(AgentRuntimeError):
    """The run that writes was superseded by a newer claim: it must stop."""

    code = "stale_epoch"


class StoreUnavailableError(AgentRuntimeError):
    """The store cannot take the write or the read now (a full or read-only disk); nothing was acknowledged."""

    code = "store_unavailable"


class StoreClosedError(StoreUnavailableError):
    """The store is closed, because the service stops."""

    code = "store_closed"

    def __init__(self) -> None:
        super().__init__("The store is closed.")


class ConfigurationError(AgentRuntimeError):
    """The operator's configuration is wrong; the message names the file, the field and the remedy."""

    code = "configuration_error"


class RegistryInvalidError(ConfigurationError):
    """The tool registry is wrong. `faults` names each fault and its place; `origin` is the file or variable."""

    code = "registry_invalid"

    def __init__(self, origin: str, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(f"{origin}: {fault}." for fault in faults).replace("?.", "?"))
        self.faults = tuple(faults)


class AlreadyOwnedError(ConfigurationError):
    """Another process owns the database or the data directory. `pid` and `url`: of that process; None if not known."""

    code = "already_owned"

    def __init__(self, message: str, *, url: str | None, pid: int | None) -> None:
        super().__init__(message)
        self.url = url
        self.pid = pid


class RegistryFaultyError(AgentRuntimeError):
    """A changed tool registry is wrong, so nothing was changed. `faults` names each fault, where they are known."""

    code = "invalid_registry"

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(f"Nothing was changed: the registry that was read before is still in force. {error}")
        self.faults = error.faults if isinstance(error, RegistryInvalidError) else ()


class PlanningError(AgentRuntimeError):
    """The planner cannot or will not turn this prompt into a plan; the message says which part and why.

    `usage`: the tokens that were used.
    """

    code = "planning_refused"

    def __init__(
        self, message: str, *, code: str | None = None, usage: Usage | None = None, may_pass: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.usage = usage or Usage()
        self.may_pass = may_pass


class MissingToolError(PlanningError):
    """The prompt is understood, but no known tool can do a part of it."""

    code = "tool_missing"


class ServersDownError(PlanningError):
    """Nothing that is known can do what the prompt asks for, but some servers are down. `server_id` is one of them.

    Its code is that of the error without them, with which the task ends if they stay down.
    """

    code = "servers_down"

    def __init__(self, error: PlanningError, down: Sequence["ServerUnavailableError"]) -> None:
        told = "; ".join(map(str, down))
        super().__init__(f"{error} {told}", code=error.code, usage=error.usage, may_pass=True)
        self.server_id = down[0].server_id
        self.retry_after_s = max(one.retry_after_s for one in down)
        self.exit_mark = down[0].exit_mark


class ModelError(AgentRuntimeError):
    """A language model gave no usable answer; the message says what to do.

    `code` is `model_unreachable` (no connection, or a timeout), `model_unavailable` (no requests for a while, after too
    many failures), `model_overloaded` (429 or 5xx after all retries), `model_key_refused`, `model_unknown`,
    `model_refused` (it declined to answer), `model_context_overflow`, `model_answer_empty`, `model_answer_truncated`
    (cut off at a limit of tokens), `model_answer_repetitive` (ended because it repeated itself),
    `model_answer_unreadable`, `model_call_as_text` (it wrote calls as text, after it was told), or `model_failed` for
    anything else. `usage`: the tokens that were used.
    `context_tokens` is the size of the model's context and `question_tokens` the length of the question, where the
    endpoint named them.
    """

    code = "model_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        usage: Usage | None = None,
        may_pass: bool = False,
        context_tokens: int | None = None,
        question_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.usage = usage or Usage()
        self.may_pass = may_pass
        self.context_tokens = context_tokens
        self.question_tokens = question_tokens


class ServerUnavailableError(AgentRuntimeError):
    """An MCP server could not be started, reached or understood. No call was sent."""

    code = "server_unavailable"

    def __init__(
        self,
        server_id: str,
        reason: str,
        *,
        may_pass: bool = False,
        retry_after_s: float = 0.0,
        exit_mark: str | None = None,
    ) -> None:
        super().__init__(f"MCP server {server_id!r} is unavailable: {reason}")
        self.server_id = server_id
        self.reason = reason
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s
        self.exit_mark = exit_mark

    def copy(self) -> "ServerUnavailableError":
        """Return the same error without its traceback, which holds on to all that was in hand."""
        return ServerUnavailableError(
            self.server_id,
            self.reason,
            may_pass=self.may_pass,
            retry_after_s=self.retry_after_s,
            exit_mark=self.exit_mark,
        )


class DefinitionChangedError(AgentRuntimeError):
    """A tool is not what the plan was made with (G6); the message names the differences. No call was sent."""

    code = "definition_changed"


class ReferenceFailedError(AgentRuntimeError):
    """A reference has no usable value: it is missing, or its result was cut or is binary."""

    code = "reference_failed"


class ConditionFailedError(AgentRuntimeError):
    """The condition of a step cannot be evaluated with the available outputs."""

    code = "condition_failed"


class CallNotSentError(AgentRuntimeError):
    """The call certainly never reached the server, so it had no effect."""

    code = "call_not_sent"

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class SessionLostError(CallNotSentError):
    """The server lost the session, so it did not process the call; a new session is needed."""

    code = "session_lost"


class OutcomeUnknownError(AgentRuntimeError):
    """The call was sent, and whether it took effect is not known (G2)."""

    code = "outcome_unknown"

    def __init__(
        self, message: str, *, may_pass: bool = False, retry_after_s: float = 0.0, exit_mark: str | None = None
    ) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s
        self.exit_mark = exit_mark
