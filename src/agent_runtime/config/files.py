"""Read the operator's YAML files strictly, and describe their faults."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.values import has_more_parts

MOST_PARTS = 100_000
"""The maximum number of keys and list items of a file. A few lines of nested aliases expand to billions."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which also rejects duplicate keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; None if it is empty.

    Raises: ConfigurationError naming the file, and the line if it is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid YAML: {error.reason}.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """Return the content of YAML text; None if it is empty. `origin`: the file or variable that it is from.

    Raises: ConfigurationError naming the origin, and the line if it is not YAML.
    """
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a safe loader, with one more check
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigurationError(f"{origin}: {where}is not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or str(error) or "nested too deeply"
        raise ConfigurationError(f"{origin}: is not valid YAML: {reason}.") from None
    if has_more_parts(value, MOST_PARTS, ()):
        raise ConfigurationError(
            f"{origin}: has more than {MOST_PARTS} keys and list items, including those that aliases (*name) repeat."
        )
    return value


def describe_unknown_key(key: object, known: Iterable[str]) -> str:
    """Return the message for an unknown key, with the closest known keys, or else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(key).lower(), names)
    if near:
        return f"unknown key; did you mean {' or '.join(map(repr, near))}?"
    return f"unknown key; expected {', '.join(names)}" if names else "unknown key"


def format_place(location: Iterable[str | int]) -> str:
    """Format a place in a file: `config.args[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


_EXPECTED = {
    "missing": "is missing",
    "string_type": "must be text (in quotes, where YAML takes it for something else)",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "mapping_type": "must be a mapping of keys to values",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "value_error": "{error}",
}


def describe_expectation(error: ErrorDetails) -> str:
    """Return the message for a pydantic error. It does not contain the value, which may be a secret."""
    said = _EXPECTED.get(error["type"])
    return said.format(**error.get("ctx", {})) if said else error["msg"]


def describe_fault(model: type[BaseModel], place: Sequence[str | int], error: ErrorDetails) -> str:
    """Return the message for an error at a place of a file that `model` describes, starting with the place."""
    if error["type"] == "extra_forbidden":
        message = describe_unknown_key(place[-1], _keys_at(model, place[:-1]))
    elif "[key]" in place[-1:]:
        place = place[:-1]
        message = "must be text as a key (in quotes)" if error["type"] == "string_type" else describe_expectation(error)
    else:
        message = describe_expectation(error)
    return f"{format_place(place)}: {message}"


def _keys_at(model: type[BaseModel], place: Iterable[str | int]) -> Iterable[str]:
    """Return the known keys at a place."""
    at: Any = model
    for part in place:
        # all items of a list (`tuple[X, ...]`) have one type, and so do the values of a mapping
        at = at.model_fields[part].annotation if _is_model(at) else [arg for arg in get_args(at) if arg is not ...][-1]
    return at.model_fields if _is_model(at) else ()


def _is_model(annotation: Any) -> bool:
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)
