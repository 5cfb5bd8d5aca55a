"""Verify one journal: find changes to it, and calls that nobody approved.

The journal is tamper-evident: a change is found and located unless every later hash, the head and the plan's digests
were changed to match. Whoever can write the whole database can forge a consistent history; only a head that was saved
elsewhere reveals that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent_runtime.domain.call_rules import CallRefusedError, parse_model_arguments
from agent_runtime.domain.chain import format_time
from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.events import CallApproved, EventRecord, PlanEdited, PlanProposed, PlanRepinned, ToolCalled
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys
from agent_runtime.domain.references import as_text, resolve
from agent_runtime.domain.stored_journal import (
    FOLD_ERRORS,
    AuditFault,
    StoredIndex,
    StoredJournal,
    chain_faults,
    read_record,
)
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import tool_key
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import JsonObject, digest


def find_journal_faults(stored: StoredJournal) -> list[AuditFault]:
    """Return all faults of a stored task; empty if everything is as it was written.

    Recomputes the hash chain from the first record to the head, and replays the journal: checks every event against the
    transition table, every plan against its digest, and every call against the approved plan.
    """
    ordered = replace(stored, entries=tuple(sorted(stored.entries, key=lambda entry: entry.seq)))
    return [*chain_faults(ordered), *replay_journal(ordered).faults]


@dataclass(slots=True)
class Replay:
    """The result of replaying a journal: the task as far as it was folded, all readable records, and the faults."""

    task: Task
    records: list[EventRecord] = field(default_factory=list)
    faults: list[AuditFault] = field(default_factory=list)


def replay_journal(stored: StoredJournal) -> Replay:
    """Fold a stored journal up to the first record that may not follow, and compare the index with the result."""
    replay = Replay(Task(stored.task_id))
    whole = True
    for entry in stored.entries:
        found = read_record(stored.task_id, entry)
        if isinstance(found, AuditFault):
            replay.faults.append(found)
            whole = False
            continue
        replay.records.append(found)
        if whole:
            whole = _fold(replay, found)
    if whole and stored.index is not None:
        replay.faults.extend(_index_faults(stored.task_id, stored.index, replay.task))
    return replay


def _fold(replay: Replay, record: EventRecord) -> bool:
    """Fold one more record. Return False if it may not follow, so that nothing after it can be checked."""
    wrong = [AuditFault(record.task_id, record.seq, *why) for why in _event_faults(replay.task, record)]
    replay.faults += wrong
    try:
        replay.task = evolve(replay.task, record)
    except FOLD_ERRORS as error:
        if not wrong:
            why = f"it may not follow: {error} Nothing after it was checked against the plan."
            replay.faults.append(AuditFault(record.task_id, record.seq, "data", why))
        return False
    return True


def _event_faults(task: Task, record: EventRecord) -> Iterator[tuple[str, str]]:
    """Yield the claims of an event that the plan or the journal before it contradict, as (field, message)."""
    event = record.event
    if isinstance(event, PlanProposed | PlanEdited | PlanRepinned):
        yield from _plan_faults(event)
    elif isinstance(event, ToolCalled):
        yield from _call_faults(task, event)
    elif isinstance(event, CallApproved):
        edited = event.edited_arguments
        if edited is not None and _digest(edited) != event.edited_digest:
            yield "data.edited_digest", "it is not the digest of the edited arguments."


def _plan_faults(event: PlanProposed | PlanEdited | PlanRepinned) -> Iterator[tuple[str, str]]:
    """Check that a plan's digest and pins match its content. In form 1 the pins cover more than the journal holds."""
    contract = event.contract
    if _digest(contract.as_digested()) != event.digest:
        yield "data.digest", "it is not the digest of the plan."
    if contract.form == 1:
        return
    for key, definition in event.definitions.items():
        if contract.pins.get(key) != _digest(definition.as_pinned()):
            yield "data.definitions", f"{key!r} is not the definition that the plan has pinned."
    for server, facts in event.identities.items():
        if contract.servers.get(server) != _digest(facts):
            yield "data.identities", f"{server!r} is not the server that the plan was made for."


def _call_faults(task: Task, called: ToolCalled) -> Iterator[tuple[str, str]]:
    """Check that a call is one of the approved plan, with exactly its arguments.

    A call of an agent step must be of a tool that the step lists, and the next one that the model's recorded answer
    proposes.
    """
    if _digest(called.arguments) != called.arguments_digest:
        yield "data.arguments_digest", "it is not the digest of the arguments."
    approved = [made.digest for made in task.approvals if made.decision == "approve"]
    if task.plan_digest is None or task.plan_digest not in approved:
        yield "data", "the call was made without an approved plan."
        return
    try:
        step = task.plan_step(called.step_id)
    except KeyError:
        yield "data.step_id", f"the approved plan has no step {called.step_id!r}."
        return
    key = tool_key(called.server, called.tool)
    if key not in tool_keys(step):
        yield "data.tool", f"{key!r} is not what the approved step calls."
        return
    try:
        expected = _expected_arguments(step, task, called)
    except (AgentRuntimeError, CallRefusedError, ValueError) as error:
        yield "data.arguments", f"the approved step cannot be called at this point: {error}"
        return
    if (wanted := _digest(expected)) is None or wanted != _digest(called.arguments):
        yield (
            "data.arguments",
            "they are not those of the approved step, with its references resolved, nor edited ones.",
        )


def _expected_arguments(step: ToolStep | AgentStep, task: Task, called: ToolCalled) -> JsonObject:
    """Return the arguments that this call must have: those that a person edited, or of the plan or the model.

    Raises: as `_step_arguments` and `_proposed_arguments`.
    """
    edited = task.steps[called.step_id].edited
    if isinstance(step, ToolStep):
        return edited.arguments if edited else _step_arguments(step, task, called)
    proposed = _proposed_arguments(task, called)
    return edited.arguments if edited else proposed


def _step_arguments(step: ToolStep, task: Task, called: ToolCalled) -> JsonObject:
    """Return the step's arguments with references resolved.

    Raises: ReferenceFailedError; also if they exceed the size of the call's arguments, since they then differ anyway.
    """
    size = len(as_text(called.arguments).encode(errors="surrogatepass"))
    resolved: JsonObject = resolve(step.arguments, task.results, 0, argument_bytes=size)
    return resolved


def _proposed_arguments(task: Task, called: ToolCalled) -> JsonObject:
    """Return the arguments that the model gave for this call. Raises: CallRefusedError, ValueError."""
    pending = task.steps[called.step_id].pending
    if pending is None or (pending.turn, pending.index) != (called.turn, called.index):
        raise ValueError("the model has asked for no such call.")
    return parse_model_arguments(pending.call.arguments)


def _digest(value: object) -> str | None:
    try:
        return digest(value)
    except ValueError:
        return None


def _index_faults(task_id: str, index: StoredIndex, task: Task) -> Iterator[AuditFault]:
    """Yield a fault for each column of the index that differs from the journal. `chain_faults` checks the others."""
    said = {
        "epoch": task.epoch,
        "status": task.status.value,
        "prompt": task.prompt,
        "plan_revision": task.plan_revision,
        "cancel_requested": int(task.cancel_requested),
        "created_at": format_time(task.created_at) if task.created_at else None,
        "updated_at": format_time(task.updated_at) if task.updated_at else None,
        "request_key": task.request_key,
        "submitter": task.submitter if index.submitter is not None else None,
        "thread": task.thread,
    }
    for name, value in said.items():
        if getattr(index, name) != value:
            yield AuditFault(task_id, None, f"tasks.{name}", "it is not what the journal says.")
    try:
        metadata = json.loads(index.metadata)
    except ValueError:
        metadata = None
    if metadata != dict(task.metadata):
        yield AuditFault(task_id, None, "tasks.metadata", "it is not what the journal says.")
