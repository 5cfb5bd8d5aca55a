from datetime import UTC, datetime
from typing import Any

from agent_runtime.domain.planning_attempts import (
    ANSWER_BYTES,
    INSTRUCTION_BYTES,
    MESSAGE_BYTES,
    AttemptFault,
    AttemptMessage,
    PlanningAttempt,
    prepare_attempt,
)
from agent_runtime.text.redaction import Redactor

SECRET = "hunter2-hunter2"  # noqa: S105 - an example


def attempt_of(**fields: Any) -> PlanningAttempt:
    messages = (AttemptMessage(role="user", content="Add."),)
    known = {"instructions": "Plan.", "messages": messages, "answer": "{}", "outcome": "planned"}
    return PlanningAttempt(at=datetime(2026, 1, 2, tzinfo=UTC), duration_ms=5, **{**known, **fields})


def test_an_attempt_within_the_limits_is_kept_whole_with_the_number_of_its_plan() -> None:
    attempt = attempt_of(answer="é" * (ANSWER_BYTES // 2))
    assert prepare_attempt(attempt, 3, str) == attempt.model_copy(update={"revision": 3})


def test_of_long_texts_the_start_is_kept() -> None:
    many = tuple(AttemptMessage(role="user", content=f"{number}" + "x" * MESSAGE_BYTES) for number in range(3))
    faults = tuple(AttemptFault(field="f" * 9000, message="m" * 9000) for _ in range(200))
    long = "é" * INSTRUCTION_BYTES
    kept = prepare_attempt(
        attempt_of(instructions=long, messages=many, answer=long, message=long, faults=faults), 1, str
    )
    assert kept.cut
    assert (len(kept.instructions.encode()), len((kept.answer or "").encode())) == (INSTRUCTION_BYTES, ANSWER_BYTES)
    assert [len(one.content) for one in kept.messages] == [MESSAGE_BYTES, 0, 0]
    assert len(kept.model_dump_json()) < 512 * 1024


def test_secrets_are_taken_out_of_every_text_before_it_is_cut() -> None:
    redactor = Redactor([SECRET])
    attempt = attempt_of(
        instructions=f"Use {SECRET}.",
        messages=(AttemptMessage(role="user", content=f"My password is {SECRET}"),),
        answer="x" * (ANSWER_BYTES - 5) + SECRET,
        message=SECRET,
        faults=(AttemptFault(field=SECRET, message=SECRET),),
    )
    kept = prepare_attempt(attempt, 1, redactor.redact).model_dump_json()
    assert SECRET not in kept
    assert SECRET[:5] not in kept
