"""References: `${s1.text}` and `${s1.output.a.0.b}` in the arguments and instructions of a plan.

A string that is exactly one reference keeps the value's type; inside other text the value is rendered as text.
`$${` is a literal `${`. Inserted text is never scanned for references.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agent_runtime.domain.caching import cache_short
from agent_runtime.domain.errors import ReferenceFailedError
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import JsonValue

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_BODY = re.compile(r"(?P<step>[A-Za-z][A-Za-z0-9_-]{0,63})\.(?P<part>text|output)(?P<path>(?:\.[^.]+)*)")
_INDEX = re.compile(r"[0-9]{1,9}")

ARGUMENT_BYTES = 1024 * 1024
"""The default limit of resolved arguments, in bytes (G11)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference: the id of a step, `text` or `output`, and the path into the output."""

    step: str
    part: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "${" + ".".join((self.step, self.part, *self.path)) + "}"


Template = tuple[str | Reference, ...]
"""A parsed string: literal text and references, in order."""


def parse_template(text: str) -> Template:
    """Parse a string. Raises: ValueError if a `${` does not start a well-formed reference."""
    if "${" not in text:
        return (text,) if text else ()
    return _parse(text)


@cache_short(entries=4096, characters=512)
def _parse(text: str) -> Template:
    parts: list[str | Reference] = []
    position = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[position : token.start()])
        position = token.end()
        if token.group() == "$${":
            parts.append("${")
            continue
        body = _BODY.fullmatch(token["body"] or "")
        if body is None or (body["part"] == "text" and body["path"]):
            raise ValueError(
                f"{token.group()[:80]!r} is not a reference: write ${{STEP.text}} or ${{STEP.output.path}}, "
                "and $${ for a literal ${"
            )
        parts.append(Reference(body["step"], body["part"], tuple(filter(None, body["path"].split(".")))))
    parts.append(text[position:])
    return tuple(part for part in parts if part != "")


def join_literal(template: Template) -> str | None:
    """Return the text of a template without references; None if it has any."""
    return None if any(isinstance(part, Reference) for part in template) else "".join(map(str, template))


def escape(text: str) -> str:
    """Return literal text as a template, with anything that looks like a reference escaped."""
    return text.replace("${", "$${")


def is_whole(template: Template) -> bool:
    """Return whether the string is exactly one reference, so that the value keeps its type."""
    return len(template) == 1 and isinstance(template[0], Reference)


def strings(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield every string in a JSON value with its path. Keys of objects are literal and not included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))


def references_in(value: JsonValue) -> Iterator[Reference]:
    """Yield every reference in a JSON value. Malformed strings have none."""
    for _, text in strings(value):
        try:
            template = parse_template(text)
        except ValueError:
            continue
        yield from (part for part in template if isinstance(part, Reference))


Dress = Callable[[JsonValue, str], JsonValue]
"""Takes a value and its reference; returns the value to insert."""


def resolve(
    value: JsonValue,
    results: Mapping[str, StoredResult],
    limit: int,
    dress: Dress | None = None,
    *,
    argument_bytes: int = ARGUMENT_BYTES,
) -> JsonValue:
    """Return the value with every reference replaced by its value, after `dress` if given.

    `results`: the stored results of earlier steps, by step id. `limit`: the size in bytes above which results were cut,
    for the message. `argument_bytes`: the limit for all texts, keys and inserted values. They are counted before
    anything is built, so that a short plan cannot produce a huge value.
    Raises: ReferenceFailedError if a reference has no usable value, or the limit is exceeded.
    """
    room = _Room(argument_bytes)

    def find(reference: Reference) -> JsonValue:
        found = look_up(reference, results, limit)
        return dress(found, str(reference)) if dress else found

    return _walk(value, find, room)


class _Room:
    """Counts the bytes of a resolved value."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def take(self, text: str) -> str:
        """Count a text and return it. Raises: ReferenceFailedError if the limit is exceeded."""
        self._left -= len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if self._left < 0:
            raise ReferenceFailedError(
                f"With its references resolved it takes more than {self._limit} bytes (limits.argument_bytes)."
            )
        return text


def _walk(value: JsonValue, find: Callable[[Reference], JsonValue], room: _Room) -> JsonValue:
    if isinstance(value, str):
        template = parse_template(value)
        if is_whole(template):
            (reference,) = template
            assert isinstance(reference, Reference)  # noqa: S101 - is_whole checked it
            found = find(reference)
            room.take(as_text(found))
            return found
        return "".join([room.take(part if isinstance(part, str) else as_text(find(part))) for part in template])
    if isinstance(value, Mapping):
        return {room.take(key): _walk(item, find, room) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, find, room) for item in value]
    return value


def as_text(value: JsonValue) -> str:
    """Render a value as text: strings as they are, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_of(result: StoredResult) -> str:
    """Return the text of a result, or its output as JSON if it has no text."""
    return result.text or ("" if result.output is None else as_text(result.output))


def look_up(reference: Reference, results: Mapping[str, StoredResult], limit: int | None = None) -> JsonValue:
    """Return the value of a reference. `limit`: as for `resolve`. Raises: ReferenceFailedError if it is not usable."""
    result = results.get(reference.step)
    if result is None:
        raise ReferenceFailedError(f"{reference}: step {reference.step!r} has no result.")
    if result.cut:
        raise ReferenceFailedError(
            f"{reference}: the result of step {reference.step!r} is {result.size} bytes, over the limit"
            f"{'' if limit is None else f' of {limit}'} (limits.stored_result_bytes), so it was cut and cannot be used."
        )
    if result.binary:
        raise ReferenceFailedError(
            f"{reference}: the result of step {reference.step!r} ({result.size} bytes) holds binary content, which "
            "cannot be used."
        )
    if reference.part == "text":
        return text_of(result)
    if result.output is None:
        return None
    value = result.output
    for depth, name in enumerate(reference.path):
        value = _descend(value, name, reference, depth)
    return value


def _descend(value: JsonValue, name: str, reference: Reference, depth: int) -> JsonValue:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
        return value[int(name)]
    place = ".".join(("output", *reference.path[:depth]))
    if isinstance(value, Mapping):
        found = "it has " + ", ".join(repr(key) for key in list(value)[:20]) if value else "it is empty"
    elif isinstance(value, list):
        found = f"it is a list of {len(value)}"
    else:
        found = f"it is {as_text(value)[:80]}"
    raise ReferenceFailedError(f"{reference}: no {name!r} in {place} of step {reference.step!r}; {found}.")
