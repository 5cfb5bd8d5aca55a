"""Notes what a language model is asked for a plan and what comes of it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from agent_runtime.domain.errors import Fault
from agent_runtime.domain.plan_requests import KeepAttempt
from agent_runtime.domain.planning_attempts import AttemptFault, AttemptMessage, PlanningAttempt
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject


class AttemptNotes:
    """The request to a model that was begun last; it is handed to `keep` once its outcome is known."""

    def __init__(self, keep: KeepAttempt) -> None:
        self._keep = keep
        self.begin("", ())

    def begin(self, instructions: str, messages: Sequence[JsonObject]) -> None:
        """Note a request that is made now."""
        self._at, self._began = datetime.now(UTC), time.perf_counter()
        self._instructions, self._messages = instructions, messages

    async def end(
        self,
        outcome: str,
        usage: Usage,
        *,
        answer: str | None = None,
        message: str | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        """Hand on the request with its outcome; the fields are those of `PlanningAttempt`."""
        await self._keep(
            PlanningAttempt(
                at=self._at,
                duration_ms=round((time.perf_counter() - self._began) * 1000, 3),
                instructions=_to_unicode(self._instructions),
                messages=tuple(
                    AttemptMessage(role=item["role"], content=_to_unicode(item["content"])) for item in self._messages
                ),
                answer=None if answer is None else _to_unicode(answer),
                outcome=outcome,
                message=None if message is None else _to_unicode(message),
                faults=tuple(
                    AttemptFault(field=_to_unicode(fault.field), message=_to_unicode(fault.message)) for fault in faults
                ),
                usage=usage,
            )
        )


def _to_unicode(text: str) -> str:
    """Return the text with lone surrogates replaced, of which a model may send half a pair."""
    return text.encode("utf-8", "replace").decode()
