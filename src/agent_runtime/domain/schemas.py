"""Apply the input schemas of tools, compiled once and within bounds.

A schema comes from a server: it may be wrong, and it may be made to stall the validator (G9). So nothing is ever
fetched, and every check has a time limit. A schema that takes longer to check is checked in another process (see
`judging/`). A check of arguments that takes longer, or a pattern that might, is left to the server, which validates its
arguments anyway.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY as SPECIFICATIONS

from agent_runtime.domain import references
from agent_runtime.domain.caching import SizedCache
from agent_runtime.domain.values import JsonObject, JsonValue

CHECK_SECONDS = 0.05
"""The CPU time limit for one check of arguments, in seconds."""

PATTERN_STEPS = 1_000_000
"""The limit of steps that a pattern may take in the worst case; about 0.02 s."""

PATTERN_CHARACTERS = 1000
"""The maximum length of a pattern: even compiling one takes time and memory."""

_CACHE_BYTES = 32 * 1024 * 1024
_BYTES_OF_A_CHARACTER = 10
"""The estimated size of a compiled schema per character of its text, on the high side."""

_stop_at: ContextVar[float] = ContextVar("_stop_at", default=float("inf"))


class UnusableSchemaError(Exception):
    """The schema is invalid, or cannot be applied within bounds; the message says which."""


class OutOfTimeError(Exception):
    """The CPU time limit was reached before the check finished."""


class OpenText(str):
    """A string with references, whose value is not known yet. `whole`: the string is exactly one reference."""

    __slots__ = ("whole",)

    whole: bool


def errors_of(schema: JsonObject, value: JsonValue, seconds: float = CHECK_SECONDS) -> list[ValidationError]:
    """Return the validation errors of a value, one for each missing or unknown property.

    An `if` is ignored if its instance contains an `OpenText`. After `seconds` of CPU time the check ends with the
    errors found so far. Raises: UnusableSchemaError.
    """
    errors: list[ValidationError] = []
    token = _stop_at.set(time.thread_time() + seconds)
    try:
        errors.extend(get_validator(schema).iter_errors(value))
    except OutOfTimeError:
        return errors
    except Exception as wrong:  # a dangling `$ref`, a cycle, a `$schema` that is a list: always the schema's fault
        raise UnusableSchemaError(_reason(wrong)) from wrong
    finally:
        _stop_at.reset(token)
    return errors


def check_schema(schema: JsonObject, seconds: float) -> None:
    """Validate a schema against its dialect, and by applying it to empty arguments.

    Raises: UnusableSchemaError; OutOfTimeError after `seconds` of CPU time.
    """
    token = _stop_at.set(time.thread_time() + seconds)
    try:
        # Patterns are ECMA-262. The format `regex` is not checked, because it would use Python's syntax.
        dialect = _dialect(schema)
        meta = _bound_dialect(dialect, unevaluated=True)(dialect.META_SCHEMA, registry=SPECIFICATIONS)
        fault = next(meta.iter_errors(schema), None)
        errors = () if fault is not None else get_validator(schema).iter_errors({})
        no_object = [error for error in errors if error.validator == "type" and not error.absolute_path]
    except OutOfTimeError:
        raise
    except Exception as wrong:  # as in `errors_of`
        raise UnusableSchemaError(_reason(wrong)) from wrong
    finally:
        _stop_at.reset(token)
    if fault is not None:
        raise UnusableSchemaError(_reason(fault))
    if no_object:
        raise UnusableSchemaError(f"its type is {schema.get('type')!r}, and the arguments of a call are an object")


def check_schemas(schemas: Mapping[str, JsonObject], seconds: float) -> dict[str, str | None]:
    """Return the fault of each schema by its key, None where it has none.

    They are checked in order until `seconds` of CPU time are used; those after them are missing.
    """
    faults: dict[str, str | None] = {}
    stop_at = time.thread_time() + seconds
    for key, schema in schemas.items():
        try:
            check_schema(schema, stop_at - time.thread_time())
        except OutOfTimeError:
            break
        except UnusableSchemaError as error:
            faults[key] = str(error)
        else:
            faults[key] = None
    return faults


def _reason(wrong: Exception) -> str:
    return str(wrong).splitlines()[0][:300] if str(wrong) else type(wrong).__name__


_validators: SizedCache[Validator] = SizedCache(_CACHE_BYTES)


def get_validator(schema: JsonObject) -> Validator:
    """Return the cached validator of a schema. It never fetches a `$ref`.

    The schema must have passed `check_schema`. Raises: any exception that a hostile one provokes.
    """
    text = json.dumps(schema, sort_keys=True)
    validator = _validators.get(text)
    if validator is None:
        validator = _compile(text)
        _validators.put(text, validator, _BYTES_OF_A_CHARACTER * len(text))
    return validator


def _compile(text: str) -> Validator:
    schema = json.loads(text)
    blind = '"patternProperties"' in text and '"unevaluatedProperties"' in text
    validator: Validator = _bound_dialect(_dialect(schema), unevaluated=not blind)(schema, registry=SPECIFICATIONS)
    return validator


def _dialect(schema: JsonObject) -> Any:
    return validator_for(schema, default=Draft202012Validator)


@lru_cache(maxsize=20)
def _bound_dialect(dialect: Any, *, unevaluated: bool) -> Any:
    """Return the dialect with keywords that respect the time limit."""
    replaced = {
        "if": _check_if,
        "multipleOf": _check_multiple_of,
        "pattern": _check_pattern,
        "patternProperties": _check_pattern_properties,
        "additionalProperties": _check_additional_properties,
        "required": _check_required,
        "uniqueItems": _check_unique_items,
    }
    known = {name: keyword for name, keyword in replaced.items() if name in dialect.VALIDATORS}
    if not unevaluated:
        known["unevaluatedProperties"] = _skip_keyword  # it would run all patterns without a limit
    bounded: Any = extend(dialect, known)  # type: ignore[no-untyped-call]
    bounded.evolve = _evolve
    return bounded


def _evolve(validator: Any, **changes: Any) -> Any:
    """Return a copy of the validator with these changes. Every step of a check calls this, so it checks the time.

    Unlike the library's own method it keeps the class, so that a nested `$schema` cannot escape the bounds.
    """
    _check_time()
    kept = {field.alias: getattr(validator, field.name) for field in validator.__attrs_attrs__ if field.init}
    return type(validator)(**(kept | changes))


def _check_time() -> None:
    if time.thread_time() > _stop_at.get():
        raise OutOfTimeError


Errors = Iterator[ValidationError]


def _check_if(validator: Any, condition: Any, instance: JsonValue, schema: JsonObject) -> Errors:
    if any(isinstance(text, OpenText) for _, text in references.strings(instance)):
        return
    branch = "then" if validator.evolve(schema=condition).is_valid(instance) else "else"
    if branch in schema:
        yield from validator.descend(instance, schema[branch], schema_path=branch)


def _check_multiple_of(validator: Any, step: Any, instance: JsonValue, _schema: JsonObject) -> Errors:
    # As decimals: 4.02 is a multiple of 0.01, although not of the double nearest to it.
    if (
        not validator.is_type(instance, "number")
        or not step
        or (isinstance(instance, float) and not math.isfinite(instance))
    ):
        return
    if _exact(instance) % _exact(step):
        yield ValidationError(f"{instance!r} is not a multiple of {step!r}")


def _exact(number: float) -> Fraction:
    return Fraction(number if isinstance(number, int) else repr(number))


def _check_pattern(validator: Any, pattern: str, instance: JsonValue, _schema: JsonObject) -> Errors:
    if validator.is_type(instance, "string") and matches(pattern, instance) is False:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _check_pattern_properties(validator: Any, patterns: JsonObject, instance: JsonValue, _schema: JsonObject) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            _check_time()
            if matches(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _check_additional_properties(validator: Any, allowed: Any, instance: JsonValue, schema: JsonObject) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        _check_time()
        if name in declared or any(matches(pattern, name) is not False for pattern in patterns):
            continue
        if allowed is False:
            known = ", ".join([*declared, *(f"any that match {pattern}" for pattern in patterns)]) or "none"
            yield ValidationError(f"There is no such argument; there are: {known}.", path=(name,))
        else:
            yield from validator.descend(value, allowed, path=name)


def _check_required(validator: Any, names: Any, instance: JsonValue, _schema: JsonObject) -> Errors:
    # In draft 3 this keyword is a boolean of the property, which `properties` handles.
    if validator.is_type(instance, "object") and isinstance(names, list):
        for name in names:
            if name not in instance:
                yield ValidationError("This is required and missing.", path=(name,))


def _check_unique_items(validator: Any, wanted: Any, instance: JsonValue, _schema: JsonObject) -> Errors:
    # The library compares every pair of objects: an hour for a megabyte. This misses equal numbers written differently.
    if not wanted or not validator.is_type(instance, "array"):
        return
    if len({json.dumps(item, sort_keys=True) for item in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _skip_keyword(*_: Any) -> None:
    """Ignore a keyword that we do not evaluate; the server decides."""


def matches(pattern: str, text: str) -> bool | None:
    """Return whether the pattern matches; None if Python cannot tell, or not certainly in time."""
    if len(pattern) > PATTERN_CHARACTERS or _worst_case(pattern, len(text)) > PATTERN_STEPS:
        return None
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return None


_ATOM = re.compile(r"\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_NESTED = re.compile(r"\[|--|&&|~~|\|\|")  # inside a character class these differ between Python and newer ECMA-262
_GROUP = re.compile(r"\(\?(?:[:=!]|<[=!]|P<\w+>)")
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


@lru_cache(maxsize=1000)
def _choices(pattern: str) -> tuple[int, int] | None:
    """Return the numbers of repeats and of alternatives in a pattern; None if they are nested and multiply."""
    if any(_NESTED.search(_ESCAPE.sub("", atom), 1) for atom in _ATOM.findall(pattern)):
        return None
    plain = _GROUP.sub("(", _ATOM.sub("a", pattern))
    if "[" in plain or "(?" in plain or re.search(r"\)[*+{]", plain):  # a flag, a repeated group, or an invalid pattern
        return None
    starts = 0 if plain.startswith("^") and "|" not in plain else 1
    return starts + len(_REPEAT.findall(plain)), plain.count("?") + plain.count("|")


def _worst_case(pattern: str, length: int) -> float:
    """Return an upper bound of the steps of a backtracking search in a text of this length."""
    choices = _choices(pattern)
    if choices is None or sum(choices) > 50:  # noqa: PLR2004 - out of reach for any text
        return float("inf")
    repeats, alternatives = choices
    return float((length + 1) ** (repeats + 1) * 2**alternatives)


def as_open(value: JsonValue) -> JsonValue:
    """Return a plan's arguments for validation: strings with references as `OpenText`, and `${` for `$${`."""
    if isinstance(value, str):
        return _open_text(value)
    if isinstance(value, Mapping):
        return {name: as_open(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_open(item) for item in value]
    return value


def _open_text(text: str) -> str:
    try:
        template = references.parse_template(text)
    except ValueError:
        return text
    literal = references.join_literal(template)
    if literal is not None:
        return literal
    found = OpenText(text)
    found.whole = references.is_whole(template)
    return found
