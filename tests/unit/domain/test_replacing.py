"""Changed copies of frozen values."""

import dataclasses
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from agent_runtime.domain.replacing import replace
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Call, StepState, Task

CALL = Call(call_id="c1", epoch=1, server="files", tool="read", arguments={}, arguments_digest="d", attempt=1)
CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (Task("t1"), {}),
    (Task("t1", version=3), {"version": 4, "status": TaskStatus.EXECUTING, "steps": {"s1": StepState()}}),
    (StepState(call=CALL), {"call": None, "note": "done"}),
    (CALL, {"attempt": 2}),
]


@pytest.mark.parametrize(("value", "changes"), CHANGES, ids=["nothing", "task", "step", "call"])
def test_a_changed_copy_is_the_one_that_the_standard_library_makes(value: Any, changes: dict[str, Any]) -> None:
    before = dataclasses.replace(value)
    assert replace(value, **changes) == dataclasses.replace(value, **changes)
    assert value == before


def test_a_copy_is_frozen_too() -> None:
    copy = replace(Task("t1"), version=2)
    with pytest.raises(FrozenInstanceError):
        copy.version = 3  # type: ignore[misc]


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(AttributeError):
        replace(Task("t1"), versoin=2)


def test_a_class_that_needs_more_than_a_copy_of_its_slots_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Computing:
        a: int
        b: int

        def __post_init__(self) -> None:
            object.__setattr__(self, "b", self.a)

    @dataclass(frozen=True)
    class Open:
        a: int = 1
        b: int = 2

    for value in (Computing(1, 2), Open()):
        with pytest.raises(TypeError, match=type(value).__name__):
            replace(value, a=2)
