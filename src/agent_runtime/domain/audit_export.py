"""The export of an audit: one JSON document that says what was asked, approved and called, with the proof of it."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from agent_runtime.domain.events import (
    CallApproved,
    CallDenied,
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

_DecisionEvent = (
    PlanApproved | PlanRejected | PlanRevisionRequested | PlanEdited | StepResolved | CallApproved | CallDenied
)


def export(kept: StoredJournal) -> JsonObject:
    """What is kept of a task, with what it says in plain words first.

    `prompt`, the newest `plan` with its digest, `approvals` and `calls` are read from `journal`, which is as stored;
    what cannot be read or folded any more is left out of them. `index` is what is kept beside the journal.
    """
    replay = replay_journal(kept)
    task = replay.task
    at = {entry.seq: entry.at for entry in kept.entries}
    returned: dict[str, int] = {}
    for record in replay.records:
        if isinstance(record.event, ToolReturned):
            returned.setdefault(record.event.call_id, record.seq)
    return {
        "format": FORMAT,
        "task_id": kept.task_id,
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
            if isinstance(record.event, _DecisionEvent)
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
        "head": kept.index.head if kept.index else None,
        "index": _as_stored(kept.index) if kept.index else None,
        "journal": [asdict(entry) for entry in kept.entries],
    }


def _as_stored(index: StoredIndex) -> JsonObject:
    """Return what is kept beside the journal; of an earlier version's export only what that version kept."""
    return {name: value for name, value in asdict(index).items() if name != "submitter" or value is not None}


def _decision(event: _DecisionEvent) -> JsonObject:
    match event:
        case StepResolved():
            what: JsonObject = {"step_id": event.step_id, "call_id": event.call_id, "resolution": event.resolution}
            return {"actor": event.actor, "comment": event.comment, **what}
        case CallApproved() | CallDenied():
            what = {"step_id": event.step_id, "call_id": event.call_id, "arguments_digest": event.arguments_digest}
            return {"actor": event.actor, "comment": event.comment, **what}
        case PlanApproved():
            comment = event.comment
        case PlanRejected():
            comment = event.reason
        case PlanRevisionRequested():
            comment = event.feedback
        case PlanEdited():
            comment = None
    return {"actor": event.actor, "comment": comment, "revision": event.revision, "digest": event.digest}


def _approver(event: _DecisionEvent) -> JsonObject:
    """Return what else the journal knows of whoever decided: tenant, how they were authenticated, an approver's scopes.

    All of it is missing where an earlier version wrote the journal.
    """
    known: JsonObject = {} if event.via is None else {"tenant": event.tenant, "via": event.via}
    if isinstance(event, PlanApproved | CallApproved) and event.scopes:
        known["scopes"] = list(event.scopes)
    return known


def find_export_faults(document: JsonValue) -> list[AuditFault]:
    """Return everything that is wrong with an export: its journal, and whatever in it does not follow from the journal.

    Raises: ValueError where it is no export at all, naming the place.
    """
    kept = parse_export(document)
    expected = export(kept)
    said = [
        AuditFault(kept.task_id, None, place, "the export does not say here what its journal says.")
        for place in _differences(document, expected, "")
    ]
    return [*find_journal_faults(kept), *said]


def parse_export(document: JsonValue) -> StoredJournal:
    """What an export holds as it was stored. Raises: ValueError where it is no export, naming the place."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"format: it is not {FORMAT!r}")
    task_id, journal, index = (document.get(name) for name in ("task_id", "journal", "index"))
    if not isinstance(task_id, str):
        raise ValueError("task_id: it is no text")  # noqa: TRY004 - all that is wrong with a document is a ValueError
    if not isinstance(journal, list):
        raise ValueError("journal: it is no list")  # noqa: TRY004 - likewise
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
    """The fields of a value, each of its type."""
    if not isinstance(value, dict):
        raise ValueError(f"{place}: it is no object")  # noqa: TRY004 - likewise
    checked: dict[str, Any] = {}
    for field in fields(kind):
        found = checked[field.name] = value.get(field.name, field.default)
        if not isinstance(found, _KINDS[field.type]) or isinstance(found, bool):
            raise ValueError(f"{place}.{field.name}: it is missing or of another type")  # noqa: TRY004 - likewise
    return checked


def _differences(found: JsonValue, expected: JsonValue, place: str) -> Iterator[str]:
    """Where two JSON values differ, as deep inside as it can be told."""
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
