"""Decides how long to wait for a call, and receives what its server says meanwhile."""

import asyncio
from typing import Protocol

from agent_runtime.domain.elicitation import Question, Reply
from agent_runtime.domain.patience import Report


class Patience(Protocol):
    """Decides how long to wait for a call that reports progress, and receives its server's reports and questions.

    `task_id` is the task of the call.
    """

    @property
    def task_id(self) -> str: ...

    def extend(self, seconds: float) -> float:
        """Return how many seconds the call may take in all, at most `seconds`, within its cap and the budget."""

    def tell(self, report: Report) -> None:
        """Receive a report without secrets, at most one a second."""

    async def ask(self, question: Question, expired: asyncio.Event) -> Reply:
        """Ask a person, and return the reply; `DECLINED` if nobody answers in time.

        The question ends once `expired` is set, or this is cancelled.
        """
