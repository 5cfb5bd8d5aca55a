"""Conditions for omitting fields that were added later from the JSON of an event: the field has its default."""

from collections.abc import Collection

from agent_runtime.domain.usage import Usage


def is_none(value: object) -> bool:
    return value is None


def is_zero(number: float) -> bool:
    return not number


def is_true(value: object) -> bool:
    return value is True


def is_empty(value: Collection[object]) -> bool:
    return not value


def is_nothing(usage: Usage) -> bool:
    return not usage.tokens
