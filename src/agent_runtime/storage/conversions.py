"""The conversions between rows and values that all stores share. A changed row must not make the others unreadable."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from agent_runtime.domain.chain import parse_time
from agent_runtime.domain.events import EventRecord, restore_record
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.status import TERMINAL, WAITING, TaskStatus
from agent_runtime.domain.summaries import TaskSummary
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.domain.values import Value

RUNNABLE = sorted(frozenset(TaskStatus) - TERMINAL - WAITING)
"""The statuses of the tasks that wait for nobody."""

ASKING = sorted(WAITING)
"""The statuses of the tasks that wait for a person."""

_EPOCH = datetime.fromtimestamp(0, UTC)


class _StoredListing(Value):
    """The stored listing of a server. `rules` identifies the rules by which its schemas were judged."""

    rules: Literal[1] = 1
    tools: tuple[JudgedDefinition, ...]


def encode_definitions(definitions: Sequence[JudgedDefinition]) -> bytes:
    return _StoredListing(tools=tuple(definitions)).model_dump_json().encode()


def decode_definitions(stored: str) -> list[JudgedDefinition] | None:
    """Return the stored listing of a server; None if it is of another version or changed, so that it is asked again."""
    try:
        return list(_StoredListing.model_validate_json(stored).tools)
    except ValidationError:
        return None


def make_summary(
    task_id: str,
    status: str,
    prompt: str,
    plan_revision: int,
    cancel_requested: int,
    metadata: str,
    created_at: str,
    updated_at: str,
    thread: str | None,
    *,
    needs_attention: bool,
) -> TaskSummary:
    """Return the summary of a task from its row. `needs_attention`: its journal was changed."""
    return TaskSummary(
        task_id=task_id,
        status=TaskStatus.NEEDS_ATTENTION if needs_attention else read_status(status),
        prompt=prompt,
        plan_revision=plan_revision,
        cancel_requested=bool(cancel_requested),
        metadata=_read_metadata(metadata),
        created_at=read_time(created_at),
        updated_at=read_time(updated_at),
        thread=thread,
    )


def read_status(text: str) -> TaskStatus:
    """Return the status in a row; `needs_attention` where it was changed to an unknown one."""
    with suppress(ValueError):
        return TaskStatus(text)
    return TaskStatus.NEEDS_ATTENTION


def _read_metadata(text: str) -> dict[str, str]:
    """Return the metadata in a row; empty where it was changed to something else."""
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


def read_time(text: str) -> datetime:
    """Return the time in a row; the beginning of 1970 where it was changed to something else."""
    with suppress(ValueError):
        return parse_time(text)
    return _EPOCH


def read_records(task_id: str, rows: Iterable[tuple[int, int | None, str, str, str]]) -> list[EventRecord]:
    """Return the records in these rows (seq, epoch, at, type, data), up to the first that cannot be read."""
    records: list[EventRecord] = []
    with suppress(KeyError, ValueError):
        for seq, epoch, at, kind, data in rows:
            records.append(restore_record(task_id, seq, epoch, parse_time(at), kind, data))
    return records


def count_statuses(counted: Iterable[tuple[str, int]], changed: Iterable[str]) -> Counter[TaskStatus]:
    """Return how many tasks are in each status that occurs. `changed`: the stored statuses of tasks whose journal was
    changed, which need attention instead.
    """
    counts: Counter[TaskStatus] = Counter()
    for status, count in counted:
        counts[read_status(status)] += count
    said = [read_status(status) for status in changed]
    counts[TaskStatus.NEEDS_ATTENTION] += len(said)
    counts.subtract(said)
    return +counts


def read_attempts(rows: Iterable[tuple[int | None, str | None]]) -> list[tuple[int, PlanningAttempt]]:
    """Return the numbered attempts at plans in these rows, without those that cannot be read."""
    found: list[tuple[int, PlanningAttempt]] = []
    for number, data in rows:
        with suppress(ValidationError):
            if number is not None and data is not None:
                found.append((number, PlanningAttempt.model_validate_json(data)))
    return found
