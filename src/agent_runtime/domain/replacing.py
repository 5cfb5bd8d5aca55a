"""Changed copies of frozen values."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from inspect import ismemberdescriptor
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def replace(value: T, **changes: Any) -> T:
    """Return a copy of a frozen dataclass with slots in which these fields are changed, as `dataclasses.replace` does.

    It copies slot by slot, which takes less than half the time: a task has some forty fields, and each of its events
    changes a few. The class must neither compute nor check anything when it is made.
    Raises: AttributeError for a field that there is not, TypeError for another class.
    """
    kind = type(value)
    read, setters = _read_slots(kind)
    copy = object.__new__(kind)
    for set_field, content in zip(setters, read(value), strict=True):
        set_field(copy, content)
    for name, content in changes.items():
        object.__setattr__(copy, name, content)
    return copy


@cache
def _read_slots(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[[Any, Any], None], ...]]:
    """Return a function that reads all fields of a value, and one for each field that sets it."""
    names = [field.name for field in fields(kind)]
    slots = [vars(kind).get(name) for name in names]
    if hasattr(kind, "__post_init__") or len(slots) < 2 or not all(map(ismemberdescriptor, slots)):  # noqa: PLR2004
        raise TypeError(f"{kind.__name__} is no plain dataclass with slots and several fields")
    return attrgetter(*names), tuple(slot.__set__ for slot in slots)
