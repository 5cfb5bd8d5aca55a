"""Tells small models by their names."""

import re
from typing import Literal

PlanFields = Literal["auto", "few", "all"]
"""The fields that a model is shown of a step: `few` is without those that most steps leave out."""

SMALL_BELOW = 4e9
"""A model with fewer parameters is small."""

_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9}
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4}(?:\.\d{1,3})?)([kmb])(?![A-Za-z0-9])", re.IGNORECASE)


def is_small(model: str) -> bool:
    """Return whether a name tells of a small model, as in `qwen3:1.7b` or `SmolLM2-135M-Instruct`.

    The largest number counts, since some names tell the active parameters as well. Without a number it is not small.
    """
    sizes = [float(number) * _UNITS[unit.lower()] for number, unit in _SIZE.findall(model)]
    return bool(sizes) and max(sizes) < SMALL_BELOW


def shows_all_fields(fields: PlanFields, model: str) -> bool:
    """Return whether to show a model all fields of a step; with `auto`, unless it is small."""
    return fields == "all" or (fields == "auto" and not is_small(model))
