"""What a server reports of a call that it works on: read as it comes, and told no faster than a person can read."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from agent_runtime.domain.elicitation import Question
from agent_runtime.domain.patience import Report, read_report
from agent_runtime.domain.values import JsonValue
from agent_runtime.live.patience import Patience
from agent_runtime.text.redaction import Redactor

_PAUSE_S = 1.0
"""How long after a report the next one is told; of those between only the newest is."""


class Reports:
    """The reports of one call. `last_at` is when the newest came or the server asked something, in the time of the
    loop, None before the first.

    A server may send as many as it likes: each costs one look-up and no task.
    """

    def __init__(self, patience: Patience, redactor: Redactor) -> None:
        self.last_at: float | None = None
        self._patience = patience
        self._redactor = redactor
        self._newest: Report | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, params: Mapping[str, JsonValue]) -> None:
        """Take a progress notification."""
        self.note_life()
        self._newest = read_report(params)
        if self._timer is None:
            self._tell_newest()

    def note_life(self) -> None:
        """Have the time-out count from now, as after a report: the server has asked something, or got its answer."""
        self.last_at = asyncio.get_running_loop().time()

    def _tell_newest(self) -> None:
        newest, self._newest, self._timer = self._newest, None, None
        if newest is not None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._tell_newest)
            self._patience.tell(replace(newest, message=self._redactor.redact_message(newest.message)))

    def redact(self, question: Question) -> Question:
        """Return a question of the server without secrets."""
        schema = self._redactor.redact_json(question.requested_schema)
        return Question(self._redactor.redact_message(question.message), schema)

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
