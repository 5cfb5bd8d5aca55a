"""Attempts of a language model at a plan: what it was asked, what it answered, and what was wrong with that.

They are kept beside the journal, for people who wonder about a plan. Nothing is decided by them.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import Value

MOST_KEPT = 20
"""The most attempts that are kept of a task; the oldest are dropped first."""

INSTRUCTION_BYTES = 96 * 1024
MESSAGE_BYTES = 96 * 1024
"""The limit of all messages of an attempt together."""

ANSWER_BYTES = 64 * 1024
_MOST_FAULTS = 100
_FAULT_BYTES = 1024


class AttemptMessage(Value):
    role: str
    content: str


class AttemptFault(Value):
    field: str
    message: str


class PlanningAttempt(Value):
    """One request for a plan and its outcome. `revision`: the number that the plan would have had.

    `outcome` is `planned`, `declined` (the model says that it cannot, and `message` why), `invalid_plan` (with
    `faults`), or the code of the failure that `message` explains. `cut`: a text was too long and is not whole.
    """

    revision: int = 0
    at: datetime
    duration_ms: float
    instructions: str
    messages: tuple[AttemptMessage, ...]
    answer: str | None = None
    outcome: str
    message: str | None = None
    faults: tuple[AttemptFault, ...] = ()
    usage: Usage = Usage()
    cut: bool = False


def prepare_attempt(attempt: PlanningAttempt, revision: int, redact: Callable[[str], str]) -> PlanningAttempt:
    """Return the attempt as it is kept: without secrets and within the limits. Of a longer text the start is kept."""
    room = _Room()

    def fit(text: str, limit: int) -> str:
        return room.fit(redact(text), limit)

    def fit_messages() -> Iterator[AttemptMessage]:
        left = MESSAGE_BYTES
        for message in attempt.messages:
            content = fit(message.content, left)
            left -= len(content.encode())
            yield AttemptMessage(role=message.role, content=content)

    faults = tuple(
        AttemptFault(field=fit(fault.field, _FAULT_BYTES), message=fit(fault.message, _FAULT_BYTES))
        for fault in attempt.faults[:_MOST_FAULTS]
    )
    prepared = {
        "revision": revision,
        "instructions": fit(attempt.instructions, INSTRUCTION_BYTES),
        "messages": tuple(fit_messages()),
        "answer": None if attempt.answer is None else fit(attempt.answer, ANSWER_BYTES),
        "message": None if attempt.message is None else fit(attempt.message, 4 * _FAULT_BYTES),
        "faults": faults,
    }
    return attempt.model_copy(update={**prepared, "cut": room.is_short or len(attempt.faults) > _MOST_FAULTS})


class _Room:
    """Cuts texts, and remembers whether one was cut."""

    def __init__(self) -> None:
        self.is_short = False

    def fit(self, text: str, limit: int) -> str:
        """Return the start of the text, as valid UTF-8 of at most `limit` bytes."""
        raw = text.encode("utf-8", "replace")
        self.is_short |= len(raw) > limit
        return raw[:limit].decode("utf-8", "ignore")
