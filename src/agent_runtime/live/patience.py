"""How long a call is waited for, and who hears what its server says meanwhile."""

import asyncio
from typing import Protocol

from agent_runtime.domain.elicitation import Question
from agent_runtime.domain.patience import Report
from agent_runtime.domain.values import JsonObject


class Patience(Protocol):
    """Who decides how long a call that reports progress is waited for, and hears what its server reports and asks.

    `task_id` names the task that the call is made for.
    """

    @property
    def task_id(self) -> str: ...

    def extend(self, seconds: float) -> float:
        """Return how many seconds the call may take in all, at most `seconds`: as its cap and the budget allow."""

    def tell(self, report: Report) -> None:
        """Take a report, with no secrets in it; at most one a second."""

    async def ask(self, question: Question, expired: asyncio.Event) -> JsonObject | None:
        """Ask a person, and return the content of the answer; None where they decline, or nobody answers in time.

        The question ends once `expired` is set, or this is cancelled.
        """
