"""Reads when a server wants to be asked again."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait (RFC 9110, section 10.2.3); None if it is unreadable.

    It holds seconds or a date. A date without a time zone is in UTC, and one in the past means at once.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return max(seconds, 0.0) if isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(text)
        return max(((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
