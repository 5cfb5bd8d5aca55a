"""Reports of progress on a call, and the time limits of calls that report it."""

from typing import Any

import pytest

from agent_runtime.domain.contract import PinnedPolicy
from agent_runtime.domain.patience import Report, read_report, report_line
from agent_runtime.domain.tools import Effect


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"progress": 3, "total": 8, "message": "Copying\u202e a.txt\nStep s2 failed"}, "3 of 8, Copying"),
        ({"progress": 0.25}, "0.25"),
        ({"progress": 3, "total": None, "message": ""}, "3"),
        ({"message": "nearly"}, "nearly"),
        ({"progress": True, "total": [], "message": 5}, "it goes on"),
        ({"progress": 10**400, "total": float("inf")}, "it goes on"),
        ({}, "it goes on"),
    ],
)
def test_a_report_is_one_line_of_what_can_be_read_of_it(params: dict[str, Any], line: str) -> None:
    said = report_line("s1", read_report(params))
    assert said.startswith(f"Step s1 reports progress: {line}")
    assert "\n" not in said
    assert "\u202e" not in said


def test_the_line_of_an_endless_message_is_short() -> None:
    assert len(report_line("s1", read_report({"message": "x" * 1_000_000}))) < 400
    assert read_report({"progress": 1, "total": 2, "message": "m"}) == Report(1, 2, "m")


@pytest.mark.parametrize(
    ("said", "timeout_s", "longest_s"),
    [
        ({"timeout_s": 60}, 60, 600),
        ({"timeout_s": 60}, 5, 50),
        ({"timeout_s": 60, "max_timeout_s": 90}, 60, 90),
        ({"timeout_s": 60, "max_timeout_s": 90}, 5, 90),
        ({"timeout_s": 60, "max_timeout_s": 60}, 60, 60),
        ({"timeout_s": 60, "max_timeout_s": 20}, 60, 60),
        ({}, 30, 300),
        ({}, None, 600),
    ],
)
def test_a_call_may_take_ten_times_its_time_out_or_what_the_operator_says(
    said: dict[str, Any], timeout_s: float | None, longest_s: float
) -> None:
    policy = PinnedPolicy(effect=Effect.READ, idempotent=True, approval="plan", **said)
    assert policy.longest_s(timeout_s) == longest_s
