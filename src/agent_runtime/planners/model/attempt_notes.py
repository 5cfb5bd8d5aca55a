"""Notes what a language model is asked for a plan and what comes of it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from agent_runtime.domain.errors import Fault
from agent_runtime.domain.plan_requests import KeepAttempt
from agent_runtime.domain.planning_attempts import AttemptFault, AttemptMessage, PlanningAttempt
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.cleaning import replace_surrogates


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
                instructions=replace_surrogates(self._instructions),
                messages=tuple(
                    AttemptMessage(role=item["role"], content=replace_surrogates(item["content"]))
                    for item in self._messages
                ),
                answer=None if answer is None else replace_surrogates(answer),
                outcome=outcome,
                message=None if message is None else replace_surrogates(message),
                faults=tuple(
                    AttemptFault(field=replace_surrogates(fault.field), message=replace_surrogates(fault.message))
                    for fault in faults
                ),
                usage=usage,
            )
        )
