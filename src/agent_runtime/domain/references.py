"""References: `${s1.text}` and `${s1.output.a.0.b}` in the arguments and instructions of a plan.

A string that is exactly one reference keeps the value's type; inside other text the value is rendered as text.
`$${` is a literal `${`. Text that a reference puts in is never scanned again.
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
"""What resolved arguments may take where no setting says otherwise (G11)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference: the step it names, `text` or `output`, and the path into the output."""

    step: str
    part: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "${" + ".".join((self.step, self.part, *self.path)) + "}"


Template = tuple[str | Reference, ...]
"""A string taken apart: literal text and references, in order."""


def parse_template(text: str) -> Template:
    """Take a string apart. Raises: ValueError where a `${` starts no well-formed reference."""
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


def is_whole(template: Template) -> bool:
    """Whether the string is exactly one reference, so that the value keeps its type."""
    return len(template) == 1 and isinstance(template[0], Reference)


def strings(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every string *value* inside a JSON value, with its path; keys are literal and hold no references."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))


def references_in(value: JsonValue) -> Iterator[Reference]:
    """Every reference inside a JSON value; strings that are not well formed hold none."""
    for _, text in strings(value):
        try:
            template = parse_template(text)
        except ValueError:
            continue
        yield from (part for part in template if isinstance(part, Reference))


Dress = Callable[[JsonValue, str], JsonValue]
"""Makes of a value, and the reference it is from, what is put in."""


def resolve(
    value: JsonValue,
    results: Mapping[str, StoredResult],
    limit: int,
    dress: Dress | None = None,
    *,
    argument_bytes: int = ARGUMENT_BYTES,
) -> JsonValue:
    """Return the value with every reference replaced by what it names, as `dress` makes it where that is given.

    `results` are the stored results of earlier steps by step id, `limit` the size above which results were cut
    (bytes, for the message). The texts, names and inserted values may take `argument_bytes` in all; they are counted
    before anything is built, so a short plan cannot become a large value.
    Raises: ReferenceFailedError where a reference has no usable value, or the limit is reached.
    """
    room = _Room(argument_bytes)

    def find(reference: Reference) -> JsonValue:
        found = look_up(reference, results, limit)
        return dress(found, str(reference)) if dress else found

    return _walk(value, find, room)


class _Room:
    """Counts the bytes of what is resolved."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def take(self, text: str) -> str:
        """Count a text and return it. Raises: ReferenceFailedError once the limit is reached."""
        self._left -= len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if self._left < 0:
            raise ReferenceFailedError(
                f"With what its references put in, it takes more than {self._limit} bytes (limits.argument_bytes)."
            )
        return text


def _walk(value: JsonValue, find: Callable[[Reference], JsonValue], room: _Room) -> JsonValue:
    if isinstance(value, str):
        template = parse_template(value)
        if is_whole(template):
            (reference,) = template
            assert isinstance(reference, Reference)  # noqa: S101 - told by is_whole
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
    """A value rendered inside other text: strings as they are, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_of(result: StoredResult) -> str:
    """Return the text of a result, or its output as JSON where it has only that."""
    return result.text or ("" if result.output is None else as_text(result.output))


def look_up(reference: Reference, results: Mapping[str, StoredResult], limit: int | None = None) -> JsonValue:
    """What a reference names; `limit` as with `resolve`. Raises: ReferenceFailedError where it has no usable value."""
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
            f"{reference}: the result of step {reference.step!r} ({result.size} bytes) holds binary content, which is "
            "not stored and cannot be used."
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
