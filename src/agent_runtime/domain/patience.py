"""How long the answer to a call is waited for, and what its server reports meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from agent_runtime.domain.values import JsonValue
from agent_runtime.text.escaping import one_line

TIMES_THE_TIMEOUT = 10
"""How many times its time-out a call that reports progress may take, where the operator does not say how long."""

CALL_S = 60.0
"""The time-out of a call whose contract names none, in seconds."""

_MOST_CHARACTERS = 4000
"""What is read of the message of a report; a person is shown less."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far a call has come, in the words of its server: `progress` of `total`, each None where it cannot be read."""

    progress: float | None = None
    total: float | None = None
    message: str = ""


def read_report(params: Mapping[str, JsonValue]) -> Report:
    """Read a progress notification; what cannot be read of it is left out."""
    message = params.get("message")
    text = message[:_MOST_CHARACTERS] if isinstance(message, str) else ""
    return Report(_number(params.get("progress")), _number(params.get("total")), text)


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def report_line(step_id: str, report: Report) -> str:
    """Return a report as one plain line to a person."""
    total = "" if report.total is None else f" of {report.total:g}"
    parts = ["" if report.progress is None else f"{report.progress:g}{total}", one_line(report.message)]
    return f"Step {step_id} reports progress: {', '.join(filter(None, parts)) or 'it goes on'}"


class Patience(Protocol):
    """Who decides how long a call that reports progress is waited for, and hears its reports."""

    def extend(self, seconds: float) -> float:
        """Return how many seconds the call may take in all, at most `seconds`: as its cap and the budget allow."""

    def tell(self, report: Report) -> None:
        """Take a report, with no secrets in it; at most one a second."""
