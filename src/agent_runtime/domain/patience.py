"""The time limits of calls, and the progress that servers report meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from agent_runtime.domain.values import JsonValue
from agent_runtime.text.escaping import one_line

TIMES_THE_TIMEOUT = 10
"""The default limit of a call that reports progress, as a multiple of its timeout."""

CALL_S = 60.0
"""The timeout of a call whose contract has none, in seconds."""

_MOST_CHARACTERS = 4000
"""The maximum length of a report's message. A person sees less of it."""


@dataclass(frozen=True, slots=True)
class Report:
    """A server's report of progress on a call: `progress` of `total`, each None if missing or not a number."""

    progress: float | None = None
    total: float | None = None
    message: str = ""


def read_report(params: Mapping[str, JsonValue]) -> Report:
    """Parse a progress notification, without the parts that are malformed."""
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
    """Return a report as one line of text."""
    total = "" if report.total is None else f" of {report.total:g}"
    parts = ["" if report.progress is None else f"{report.progress:g}{total}", one_line(report.message)]
    return f"Step {step_id} reports progress: {', '.join(filter(None, parts)) or 'it goes on'}"
