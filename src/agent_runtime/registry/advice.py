"""Advice about registry entries that are valid but do not do what was meant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence that tells the operator what to change in an entry."""

    server_id: str
    message: str
