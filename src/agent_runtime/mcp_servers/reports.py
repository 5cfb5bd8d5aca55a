"""The progress reports of a server on a call: received as they come, and passed on as slowly as a person can read."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from agent_runtime.domain.elicitation import Question
from agent_runtime.domain.patience import Report, read_report
from agent_runtime.domain.values import JsonValue
from agent_runtime.live.patience import Patience
from agent_runtime.text.redaction import Redactor

_PAUSE_S = 1.0
"""The least seconds between two reports that are passed on; of those in between only the newest is."""


class Reports:
    """The reports on one call. `last_at` is when the last report or question came, by the event loop's clock; None
    before the first.

    A server may send any number of reports: each costs one look-up and no task.
    """

    def __init__(self, patience: Patience, redactor: Redactor) -> None:
        self.last_at: float | None = None
        self._patience = patience
        self._redactor = redactor
        self._newest: Report | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, params: Mapping[str, JsonValue]) -> None:
        """Receive a progress notification."""
        self.note_life()
        self._newest = read_report(params)
        if self._timer is None:
            self._tell_newest()

    def note_life(self) -> None:
        """Start the time-out again, as a report does: the server has asked a question, or got its answer."""
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
        """Pass on nothing more."""
        if self._timer is not None:
            self._timer.cancel()
