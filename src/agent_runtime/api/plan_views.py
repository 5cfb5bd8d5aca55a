"""Revisions of plans and attempts at them as callers see them."""

from collections.abc import Iterable, Mapping, Sequence

from typing_extensions import TypedDict

from agent_runtime.api.bodies import DiffQuery
from agent_runtime.api.shapes import DiffView, RevisionView
from agent_runtime.api.views import time_of
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.revisions import Revision, diff_revisions, format_diff
from agent_runtime.domain.sentences import describe_steps, number_steps


class AttemptMessageView(TypedDict):
    role: str
    content: str


class AttemptFaultView(TypedDict):
    field: str
    message: str


class TokensView(TypedDict):
    input_tokens: int
    output_tokens: int


class PlanningAttemptView(TypedDict):
    """One request for a plan. `outcome` is `planned`, `declined`, `invalid_plan` or the code of a failure.

    `revision` is the number of the plan that was asked for. `cut`: a text was too long and is not shown whole.
    """

    number: int
    revision: int
    at: str
    duration_ms: float
    instructions: str
    messages: list[AttemptMessageView]
    answer: str | None
    outcome: str
    message: str | None
    faults: list[AttemptFaultView]
    usage: TokensView
    cut: bool


class PlanningView(TypedDict):
    """The attempts in order. Numbers count from 1; those that are missing were dropped."""

    task_id: str
    attempts: list[PlanningAttemptView]


def revision_view(revision: Revision) -> RevisionView:
    return {
        "revision": revision.number,
        "digest": revision.digest,
        "at": time_of(revision.at),
        "by": revision.by,
        "feedback": revision.feedback,
        "plan_object": revision.contract.as_digested(),
    }


def diff_view(revisions: Sequence[Revision], query: DiffQuery) -> DiffView:
    """Return the differences between two of the revisions. Raises: InvalidInputError if there is no such revision."""
    asked = {"from": query.from_, "to": query.to}
    there_are = f"there are 1 to {len(revisions)}" if revisions else "there is no plan yet"
    faults = [
        Fault(name, f"There is no revision {number} of this plan; {there_are}.")
        for name, number in asked.items()
        if not 1 <= number <= len(revisions)
    ]
    if faults:
        raise InvalidInputError(faults)
    before, after = revisions[query.from_ - 1], revisions[query.to - 1]
    numbers = number_steps(after.contract)  # of the plan that the reader has before them
    old, new = _sentences(before, numbers), _sentences(after, numbers)
    return {
        "from": before.number,
        "to": after.number,
        "text": format_diff(before, after),
        "changes": [
            {
                "step_id": change.step_id,
                "change": change.kind,
                "fields": {name: {"from": field.before, "to": field.after} for name, field in change.fields.items()},
                "sentence": {"from": old.get(change.step_id), "to": new.get(change.step_id)},
            }
            for change in diff_revisions(before, after)
        ],
    }


def _sentences(revision: Revision, numbers: Mapping[str, int]) -> dict[str | None, str]:
    words = describe_steps(revision.contract, revision.identities, {}, numbers=numbers)
    return {step.id: told.sentence for step, told in zip(revision.contract.steps, words, strict=True)}


def planning_view(task_id: str, attempts: Iterable[tuple[int, PlanningAttempt]]) -> PlanningView:
    return {"task_id": task_id, "attempts": [_attempt(*one) for one in attempts]}


def _attempt(number: int, attempt: PlanningAttempt) -> PlanningAttemptView:
    return {
        "number": number,
        "revision": attempt.revision,
        "at": time_of(attempt.at),
        "duration_ms": attempt.duration_ms,
        "instructions": attempt.instructions,
        "messages": [{"role": one.role, "content": one.content} for one in attempt.messages],
        "answer": attempt.answer,
        "outcome": attempt.outcome,
        "message": attempt.message,
        "faults": [{"field": one.field, "message": one.message} for one in attempt.faults],
        "usage": {"input_tokens": attempt.usage.input_tokens, "output_tokens": attempt.usage.output_tokens},
        "cut": attempt.cut,
    }
