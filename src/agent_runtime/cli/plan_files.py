"""Plans as files: they are read as JSON or YAML, and written as YAML."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent_runtime.client import Task
from agent_runtime.config import format_place, parse_yaml
from agent_runtime.domain.errors import ConfigurationError, Fault, InvalidInputError
from agent_runtime.domain.plan import Plan

_WIDTH = 120
_DIGEST = re.compile(r"^# .*(sha256:[0-9a-f]{64})", re.MULTILINE)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def read_plan(file: str) -> dict[str, Any]:
    """Return the plan in a file, which is JSON or YAML; `-` is standard input. The service judges it.

    Raises: ConfigurationError if it cannot be read; InvalidInputError if it holds no JSON object.
    """
    return read_written_plan(file)[0]


def read_written_plan(file: str) -> tuple[dict[str, Any], str | None]:
    """Return the plan in a file, and the digest in the comment that `write_plan` has put there.

    Raises: as `read_plan`.
    """
    text = _read(file)
    digest = _DIGEST.search(text)
    return _parse(text, file), digest[1] if digest else None


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = parse_yaml(text, origin)
    if not isinstance(value, dict):
        raise InvalidInputError([Fault(origin, "It must be a plan: an object with `goal` and `steps`.")])
    if found := next(_find_faults(value), None):
        place, fault = found
        raise InvalidInputError([Fault(f"{origin}: {format_place(place)}", fault)])
    return value


def _find_faults(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the places of what YAML can say and JSON cannot, such as dates."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                yield (*place, str(key)), "A key must be text: write it in quotes."
            yield from _find_faults(part, (*place, str(key)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _find_faults(part, (*place, number))
    elif not isinstance(value, str | int | float | bool | None):
        yield place, f"JSON has no {type(value).__name__}: write it in quotes."


def write_plan(task: Task) -> str:
    """Return the plan of a task as YAML, without what is so by default. Its first line names the digest."""
    contract = task["plan_object"] or {}
    plan = Plan.model_validate({"goal": contract["goal"], "steps": contract["steps"]})
    content = plan.model_dump(mode="json", exclude_defaults=True)
    head = f"# Plan of {task['task_id']}, revision {task['plan_revision']}: {task['plan_digest']}\n"
    return head + str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH))
