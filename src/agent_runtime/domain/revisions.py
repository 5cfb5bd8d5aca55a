"""The revisions of a plan in the journal, and the differences between two of them.

Everything here takes time linear in the size of the plans.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from agent_runtime.domain.contract import Contract
from agent_runtime.domain.events import (
    EventRecord,
    PlanEdited,
    PlanProposed,
    PlanRepinned,
    PlanRevisionFailed,
    PlanRevisionRequested,
)
from agent_runtime.domain.identity import flatten
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.values import JsonObject, JsonValue, canonical
from agent_runtime.text.escaping import escape_hidden, has_hidden

REGISTRY = "registry"
"""The author of a revision that only adopts the current configuration."""

PlanStep = ToolStep | AgentStep
Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Revision:
    """A plan that was proposed, edited or repinned.

    `by`: the author: a planner, a person or the registry. `feedback`: the reason for the revision: a person's feedback
    on the previous plan, or the changes of the configuration; None without one. `identities`: the facts about its
    servers, by id.
    """

    number: int
    digest: str
    at: datetime
    by: str
    feedback: str | None
    contract: Contract
    identities: Mapping[str, JsonObject] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field before and after. `before` is None if the field was added, `after` if it was removed."""

    before: JsonValue
    after: JsonValue
    kind: Kind = "changed"


@dataclass(frozen=True, slots=True)
class RevisionChange:
    """The differences in one step, or in the plan as a whole if `step_id` is None."""

    step_id: str | None
    kind: Kind
    fields: Mapping[str, Difference]


def read_revisions(journal: Iterable[EventRecord]) -> Iterator[Revision]:
    """Yield every revision in a journal, in order."""
    feedback: str | None = None
    for record in journal:
        match record.event:
            case PlanRevisionRequested() as asked:
                feedback = asked.feedback
            case PlanRevisionFailed():
                feedback = None
            case PlanProposed() as plan:
                yield Revision(
                    plan.revision, plan.digest, record.at, plan.planner, feedback, plan.contract, plan.identities
                )
                feedback = None
            case PlanEdited() as plan:
                yield Revision(plan.revision, plan.digest, record.at, plan.actor, None, plan.contract, plan.identities)
            case PlanRepinned() as plan:
                why = " ".join(plan.differences)
                yield Revision(plan.revision, plan.digest, record.at, REGISTRY, why, plan.contract, plan.identities)
            case _:
                pass


def diff_revisions(before: Revision, after: Revision) -> list[RevisionChange]:
    """Return the differences: of the plan as a whole, of each step in the order of the later plan, then removed steps.

    Arguments are compared one by one, as `arguments.NAME`. The plan as a whole has the goal, the limits, the order of
    the common steps, policy and pin of each common tool, each fact about the common servers (`servers.ID.cwd`) and the
    model.
    """
    old = {step.id: step for step in before.contract.steps}
    new = {step.id: step for step in after.contract.steps}
    found = [RevisionChange(None, "changed", _compare_fields(_whole(before, after), _whole(after, before)))]
    for name, step in new.items():
        kind: Kind = "changed" if name in old else "added"
        found.append(
            RevisionChange(name, kind, _compare_fields(_fields(old[name]) if name in old else {}, _fields(step)))
        )
    found += [
        RevisionChange(name, "removed", _compare_fields(_fields(step), {}))
        for name, step in old.items()
        if name not in new
    ]
    return [change for change in found if change.fields]


def _whole(revision: Revision, compared: Revision) -> dict[str, JsonValue]:
    contract, other = revision.contract, compared.contract
    data = contract.model_dump(mode="json")
    shared = {step.id for step in other.steps}
    return {
        "goal": data["goal"],
        "limits": data["limits"],
        **({"covers_data": True} if contract.covers_data else {}),
        "order": [step.id for step in contract.steps if step.id in shared],
        **{f"policy.{key}": value for key, value in data["policy"].items() if key in other.policy},
        **{f"pins.{key}": value for key, value in data["pins"].items() if key in other.pins},
        **{
            f"servers.{server}.{place}": value
            for server, facts in revision.identities.items()
            if server in compared.identities
            for place, value in flatten(facts).items()
        },
        **({} if contract.model is None or other.model is None else {"model": data["model"]}),
    }


def _fields(step: PlanStep) -> dict[str, JsonValue]:
    data = step.model_dump(mode="json")
    arguments = data.pop("arguments", {})
    del data["id"]
    data = {name: value for name, value in data.items() if value is not None}  # unlike arguments, where None counts
    return {**data, **{f"arguments.{name}": value for name, value in arguments.items()}}


def _compare_fields(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> dict[str, Difference]:
    found: dict[str, Difference] = {}
    for name in dict.fromkeys((*before, *after)):
        kind: Kind = "added" if name not in before else "removed" if name not in after else "changed"
        if kind != "changed" or canonical(before[name]) != canonical(after[name]):
            found[name] = Difference(before.get(name), after.get(name), kind)
    return found


def format_diff(before: Revision, after: Revision) -> str:
    """Format two plans like a unified diff: ` ` marks what both have, `-` only the first, `+` only the second.

    Every step has a line, followed by the fields that differ.
    """
    return "\n".join(_lines(before, after))


def _lines(before: Revision, after: Revision) -> Iterator[str]:
    yield f"--- revision {before.number} {before.digest}"
    yield f"+++ revision {after.number} {after.digest}"
    found = {change.step_id: change for change in diff_revisions(before, after)}
    if None in found:
        yield from _field_lines(found[None], "")
    steps = {step.id: step for step in (*before.contract.steps, *after.contract.steps)}
    order = [step.id for step in after.contract.steps]
    for name in dict.fromkeys((*order, *steps)):
        change = found.get(name)
        mark = _MARKS[change.kind] if change else " "
        yield f"{mark}{name}: {_text(steps[name].title)}"
        if change:
            yield from _field_lines(change, "    ")


_MARKS = {"added": "+", "removed": "-", "changed": " "}


def _field_lines(change: RevisionChange, indent: str) -> Iterator[str]:
    for name, difference in change.fields.items():
        if difference.kind != "added":
            yield f"-{indent}{_name(name)} = {_text(difference.before)}"
        if difference.kind != "removed":
            yield f"+{indent}{_name(name)} = {_text(difference.after)}"


def _text(value: Any) -> str:
    """Return the value as JSON on one line, with hidden characters escaped."""
    return escape_hidden(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _name(name: str) -> str:
    return _text(name) if has_hidden(name) else name
