"""The submission that a request for a new task becomes, for every door that takes one."""

from dataclasses import dataclass

from agent_runtime.api.bodies import TaskRequest
from agent_runtime.api.faults import WHOLE
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.values import JsonValue, digest
from agent_runtime.services.task_manager import Submission


@dataclass(frozen=True, slots=True)
class RepeatKey:
    """Identifies a repeated request, which returns the same task: the key of the caller, and the digest of the body."""

    key: str | None = None
    digest: str | None = None


def make_submission(body: TaskRequest, key: RepeatKey) -> Submission:
    """Return the submission of a validated body."""
    return Submission(
        prompt=body.prompt,
        plan=body.plan,
        approval=body.approval,
        tools=None if body.tools is None else tuple(body.tools),
        limits=Limits(budget=body.budget, max_steps=body.max_steps),
        metadata=body.metadata,
        thread=body.thread,
        request_key=key.key,
        request_digest=key.digest,
    )


def digest_body(value: JsonValue) -> str:
    """Return the digest of a body. Raises: InvalidInputError if it holds what has no exact form."""
    try:
        return digest(value)
    except ValueError as error:
        raise InvalidInputError([Fault(WHOLE, f"A value cannot be represented exactly: {error}.")]) from error
