"""The base class of all events, and the record of an event in a journal."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.values import Value

Writer = Literal["run", "anyone"]
"""`run`: only the run with the newest claim. `anyone`: a caller's decision, the service itself, or a run."""

EVENTS: dict[str, type["Event"]] = {}
"""Every event by its name, in the order of `events.py`. Names are stored in journals: their meaning never changes."""


class Event(Value):
    """A fact about a task. The class statement of each kind, and nothing else, defines the properties of its events.

    `type`: its name in the journal, on the stream and in the API.
    `follows`: the statuses in which it may be written; empty for `task.submitted`, which comes first.
    `writer`: who may write it.
    `ends_task`: no event may follow (G7).
    """

    type: ClassVar[str]
    follows: ClassVar[frozenset[TaskStatus]]
    writer: ClassVar[Writer]
    ends_task: ClassVar[bool]

    def __init_subclass__(
        cls,
        *,
        type: str,  # noqa: A002 - the name in the journal and the API
        follows: Collection[TaskStatus] = (),
        writer: Writer = "anyone",
        ends_task: bool = False,
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        cls.type, cls.follows, cls.writer, cls.ends_task = type, frozenset(follows), writer, ends_task
        EVENTS[type] = cls


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event in the journal of a task: number `seq` (from 1, without gaps), written at the UTC time `at`.

    `epoch`: that of the run that wrote it; None for a decision from outside. `data`: the event as JSON, encoded once,
    so that the journal and every stream have the same bytes.
    """

    task_id: str
    seq: int
    epoch: int | None
    at: datetime
    event: Event
    data: str

    @property
    def type(self) -> str:
        return self.event.type


def make_record(task_id: str, seq: int, epoch: int | None, at: datetime, event: Event) -> EventRecord:
    """Return the record of a new event, with its JSON."""
    return EventRecord(task_id, seq, epoch, at, event, event.model_dump_json())


def restore_record(task_id: str, seq: int, epoch: int | None, at: datetime, kind: str, data: str) -> EventRecord:
    """Decode an event from a journal. Raises: KeyError if this version does not know its type."""
    return EventRecord(task_id, seq, epoch, at, EVENTS[kind].model_validate_json(data), data)
