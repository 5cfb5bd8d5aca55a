"""The arguments that a person wants to have sent instead of those that were shown."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from agent_runtime.domain.approval import ApproveCall
from agent_runtime.domain.call_rules import CallRefusedError, Proposal, next_proposal
from agent_runtime.domain.caller import EDITOR_SCOPES, Caller
from agent_runtime.domain.drafting import MOST_DEPTH
from agent_runtime.domain.errors import Fault, InvalidInputError, ScopeMissingError
from agent_runtime.domain.event_base import EventRecord
from agent_runtime.domain.events import CallApproved
from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.transitions import evolve
from agent_runtime.domain.values import JsonObject, as_digested, digest, is_deeper_than

JudgeCall = Callable[[Task, Proposal, AbstractSet[str]], object]
"""Judges a proposed call by all rules, and raises CallRefusedError; see `call_rules.judge`."""

_FIELD = "edited_arguments"


def read_edit(decision: ApproveCall, caller: Caller) -> JsonObject:
    """Return the fields of `call.approved` about edited arguments. Those that were shown are no edit.

    Raises: InvalidInputError where JSON cannot carry them, ScopeMissingError where the caller may not edit.
    """
    if decision.edited_arguments is None:
        return {}
    if is_deeper_than(decision.edited_arguments, MOST_DEPTH):
        raise InvalidInputError([Fault(_FIELD, f"They are nested more than {MOST_DEPTH} deep.")])
    arguments = as_digested(decision.edited_arguments)
    try:
        edited_digest = digest(arguments)
    except ValueError as error:
        raise InvalidInputError([Fault(_FIELD, f"JSON cannot hold them exactly: {error}.")]) from error
    if edited_digest == decision.arguments_digest:
        return {_FIELD: None}
    for scope in EDITOR_SCOPES:
        if not caller.may(scope):
            message = f"To send a call with other arguments than were shown takes the scope {scope!r} too."
            raise ScopeMissingError(message, scope)
    return {_FIELD: arguments, "edited_digest": edited_digest}


def check_edit(task: Task, approval: CallApproved, judge: JudgeCall) -> None:
    """Check that a call may be sent with its edited arguments, by every rule for calls.

    Raises: InvalidInputError, which names each faulty argument below `edited_arguments`.
    """
    if approval.edited_arguments is None or task.updated_at is None:
        return
    record = EventRecord(task.task_id, task.version + 1, None, task.updated_at, approval, "")
    approved = replace(evolve(task, record), status=TaskStatus.EXECUTING)  # other steps may still ask
    try:
        judge(approved, next_proposal(approved, approved.plan_step(approval.step_id)), frozenset())
    except CallRefusedError as refusal:
        found = [Fault(f"edited_{fault.field}", fault.message) for fault in refusal.faults]
        why = Fault(_FIELD, f"The call cannot be sent with them: {refusal}")
        raise InvalidInputError(found or [why]) from refusal
