"""The header by which a server says when it wants to be asked again."""

from datetime import UTC, datetime

import pytest

from agent_runtime.domain.retry_after import parse_retry_after

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (" 2.5 ", 2.5),
        ("-3", 0),
        ("9" * 400, None),
        ("inf", None),
        ("nan", None),
        ("Sat, 21 Nov 2026 04:02:00 GMT", 120),
        ("Saturday, 21-Nov-26 04:02:00 GMT", 120),
        ("Sat Nov 21 04:02:00 2026", 120),
        ("Sat, 21 Nov 2026 05:02:00 +0100", 120),
        ("Sat, 21 Nov 2026 03:00:00 GMT", 0),
        ("Sat, 99 Nov 2026 04:02:00 GMT", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_given_in_seconds_or_as_a_date_of_any_form(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds
