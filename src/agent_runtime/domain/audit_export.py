"""The audit export: a JSON document with the prompt, approvals and calls of a task and the journal that proves them."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from agent_runtime.domain.events import (
    CallApproved,
    CallDenied,
    InputAnswered,
    PlanApproved,
    PlanEdited,
    PlanRejected,
    PlanRevisionRequested,
    StepResolved,
    ToolCalled,
    ToolReturned,
)
from agent_runtime.domain.journal_verification import find_journal_faults, replay_journal
from agent_runtime.domain.stored_journal import AuditFault, StoredIndex, StoredJournal, StoredRecord
from agent_runtime.domain.values import JsonObject, JsonValue

FORMAT = "agent-runtime-audit/1"

DecisionEvent = (
    PlanApproved
    | PlanRejected
    | PlanRevisionRequested
    | PlanEdited
    | StepResolved
    | CallApproved
    | CallDenied
    | InputAnswered
)
"""The events that `approvals` lists."""


def export(stored: StoredJournal) -> JsonObject:
    """Return the export of a stored task.

    `journal` is as stored. `prompt`, the newest `plan` with its digest, `approvals` and `calls` are derived from it,
    without what cannot be read or folded. `index` is the task's row beside the journal.
    """
    replay = replay_journal(stored)
    task = replay.task
    at = {entry.seq: entry.at for entry in stored.entries}
    returned: dict[str, int] = {}
    for record in replay.records:
        if isinstance(record.event, ToolReturned):
            returned.setdefault(record.event.call_id, record.seq)
    return {
        "format": FORMAT,
        "task_id": stored.task_id,
        "status": task.status.value,
        "prompt": task.prompt,
        "plan": task.contract.as_digested() if task.contract else None,
        "plan_revision": task.plan_revision,
        "plan_digest": task.plan_digest,
        "approvals": [
            {
                "seq": record.seq,
                "at": at[record.seq],
                "decision": record.type,
                **_decision(record.event),
                **_approver(record.event),
            }
            for record in replay.records
            if isinstance(record.event, DecisionEvent)
        ],
        "calls": [
            {
                "seq": record.seq,
                "at": at[record.seq],
                **record.event.model_dump(mode="json", exclude={"timeout_s"}),
                "returned_seq": returned.get(record.event.call_id),
            }
            for record in replay.records
            if isinstance(record.event, ToolCalled)
        ],
        "head": stored.index.head if stored.index else None,
        "index": _as_stored(stored.index) if stored.index else None,
        "journal": [asdict(entry) for entry in stored.entries],
    }


def _as_stored(index: StoredIndex) -> JsonObject:
    """Return the index as JSON; without `submitter` if an earlier version wrote it, and without an empty `thread`."""
    absent = {"submitter", "thread"}
    return {name: value for name, value in asdict(index).items() if name not in absent or value is not None}


def _decision(event: DecisionEvent) -> JsonObject:
    match event:
        case StepResolved():
            what: JsonObject = {"step_id": event.step_id, "call_id": event.call_id, "resolution": event.resolution}
            return {"actor": event.actor, "comment": event.comment, **what}
        case CallApproved() | CallDenied():
            what = {"step_id": event.step_id, "call_id": event.call_id, "arguments_digest": event.arguments_digest}
            if isinstance(event, CallApproved) and event.edited_arguments is not None:
                what |= {"edited_arguments": event.edited_arguments, "edited_digest": event.edited_digest}
            return {"actor": event.actor, "comment": event.comment, **what}
        case InputAnswered():
            what = {"step_id": event.step_id, "question_id": event.question_id, "action": event.action}
            return {"actor": event.actor, "comment": None, **what}
        case PlanApproved():
            comment = event.comment
        case PlanRejected():
            comment = event.reason
        case PlanRevisionRequested():
            comment = event.feedback
        case PlanEdited():
            comment = None
    return {"actor": event.actor, "comment": comment, "revision": event.revision, "digest": event.digest}


def _approver(event: DecisionEvent) -> JsonObject:
    """Return the recorded tenant, authentication method and (for approvals) scopes of the person who decided.

    Empty for journals of earlier versions.
    """
    known: JsonObject = {} if event.via is None else {"tenant": event.tenant, "via": event.via}
    if isinstance(event, PlanApproved | CallApproved) and event.scopes:
        known["scopes"] = list(event.scopes)
    return known


def find_export_faults(document: JsonValue) -> list[AuditFault]:
    """Return the faults of an export: those of its journal, and every part that does not follow from the journal.

    Raises: ValueError if it is not an export, naming the place.
    """
    stored = parse_export(document)
    expected = export(stored)
    said = [
        AuditFault(stored.task_id, None, place, "this part of the export does not match its journal.")
        for place in _differences(document, expected, "")
    ]
    return [*find_journal_faults(stored), *said]


def parse_export(document: JsonValue) -> StoredJournal:
    """Return the stored journal in an export. Raises: ValueError if it is not an export, naming the place."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"format: it is not {FORMAT!r}")
    task_id, journal, index = (document.get(name) for name in ("task_id", "journal", "index"))
    if not isinstance(task_id, str):
        raise ValueError("task_id: it is not text")  # noqa: TRY004 - all that is wrong with a document is a ValueError
    if not isinstance(journal, list):
        raise ValueError("journal: it is not a list")  # noqa: TRY004 - likewise
    entries = tuple(
        StoredRecord(**_read_fields(StoredRecord, one, f"journal[{place}]")) for place, one in enumerate(journal)
    )
    return StoredJournal(
        task_id, entries, None if index is None else StoredIndex(**_read_fields(StoredIndex, index, "index"))
    )


_KINDS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    str | None: (str, type(None)),
    int | None: (int, type(None)),
}


def _read_fields(kind: type[StoredRecord | StoredIndex], value: JsonValue, place: str) -> dict[str, Any]:
    """Return the fields of a value, checked for their types."""
    if not isinstance(value, dict):
        raise ValueError(f"{place}: it is not an object")  # noqa: TRY004 - likewise
    checked: dict[str, Any] = {}
    for field in fields(kind):
        found = checked[field.name] = value.get(field.name, field.default)
        if not isinstance(found, _KINDS[field.type]) or isinstance(found, bool):
            raise ValueError(f"{place}.{field.name}: it is missing or of another type")  # noqa: TRY004 - likewise
    return checked


def _differences(found: JsonValue, expected: JsonValue, place: str) -> Iterator[str]:
    """Yield the paths at which two JSON values differ, as deep as possible."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in found.keys() | expected.keys():
            inner = f"{place}.{name}" if place else name
            if name in found and name in expected:
                yield from _differences(found[name], expected[name], inner)
            else:
                yield inner
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif type(found) is not type(expected) or found != expected:
        yield place
