"""Fits the functions that a model is offered to what endpoints accept, and reads their calls back.

A tool's schema may be any JSON Schema; endpoints take less, each something else. The functions are *fitted* as little
as OpenAI demands: an object with properties and no alternatives, arrays with items, no references, and property names
of 64 letters, digits, `_`, `.` and `-`. Where an endpoint rejects even that, they are *plain*: the few keywords of
Gemini's API, whose parser refuses a request for one keyword more. What is left out is told in the descriptions.

Calls are judged by the tool's own schema. So `FittedFunction.restore` undoes in the arguments what was changed.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from agent_runtime.domain.model_requests import OfferedTool
from agent_runtime.domain.values import JsonObject, JsonValue

_MOST_NODES = 3000
"""The size of a fitted schema, in subschemas. References that are inlined may make one grow without bounds."""

_MOST_DEPTH = 24
_LONGEST_DESCRIPTION = 1024
"""OpenAI's limit for the description of a function."""

_MOST_KNOWN = 512
_BAD_IN_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_KEY = 64
_UNUSED = "unused"
"""The name of the only property of a plain function without arguments: some endpoints want one."""

_ONE = ("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "unevaluatedProperties")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("patternProperties", "dependentSchemas")
_LEFT_OUT = frozenset({"$ref", "$dynamicRef", "$defs", "definitions", "$schema", "$id", "id", "$anchor", "$comment"})
_PLAIN_WORDS = frozenset(
    {"description", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern"}
)
_PLAIN_FORMATS = frozenset({"date-time", "float", "double", "int32", "int64"})
_TOLD = {
    "format": "Format: {}.",
    "exclusiveMinimum": "Greater than {}.",
    "exclusiveMaximum": "Less than {}.",
    "multipleOf": "A multiple of {}.",
    "default": "Default: {}.",
    "uniqueItems": "Without duplicates.",
}


@dataclass(slots=True)
class Changes:
    """Changes of a schema that are undone in values: names of properties, one that was added, and values that became
    text.
    """

    names: dict[str, str] = field(default_factory=dict)
    added: str | None = None
    inner: dict[str, "Changes"] = field(default_factory=dict)
    items: "Changes | None" = None
    as_text: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.added or self.inner or self.items or self.as_text)

    def add(self, other: "Changes") -> None:
        """Take over the changes of an alternative of the same schema."""
        self.names |= other.names
        for name, changes in other.inner.items():
            self.inner.setdefault(name, Changes()).add(changes)
        if other.items:
            self.items = self.items or Changes()
            self.items.add(other.items)
        self.as_text |= other.as_text

    def undo(self, value: Any) -> Any:
        """Return the value as the tool's own schema means it."""
        if self.as_text and isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
            try:
                return from_json(value)
            except ValueError:
                return value
        if isinstance(value, list) and self.items:
            return [self.items.undo(item) for item in value]
        if isinstance(value, dict) and (self.names or self.added or self.inner):
            return {
                self.names.get(name, name): self.inner[name].undo(item) if name in self.inner else item
                for name, item in value.items()
                if name != self.added
            }
        return value


@dataclass(frozen=True, slots=True)
class FittedFunction:
    """A function as an endpoint accepts it."""

    name: str
    description: str
    schema: JsonObject
    changes: Changes

    def restore(self, arguments: str) -> str:
        """Return the arguments of a call as the tool's own schema means them; anything but an object is left alone."""
        if not self.changes:
            return arguments
        try:
            given = from_json(arguments)
        except ValueError:
            return arguments
        if not isinstance(given, dict):
            return arguments
        return to_json(self.changes.undo(given)).decode()


def fit_function(tool: OfferedTool, *, plain: bool) -> FittedFunction:
    """Return the function of a tool, fitted as little as possible, or `plain`."""
    schema, changes = (_PlainFitter if plain else _Fitter)(tool.input_schema).fit_root()
    description = tool.description
    if plain and len(description) > _LONGEST_DESCRIPTION:
        description = description[: _LONGEST_DESCRIPTION - 4] + " ..."
    return FittedFunction(tool.name, description, schema, changes)


class FunctionCache:
    """Fits functions, and each definition only once: the turns of a step offer the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, bool], tuple[OfferedTool, FittedFunction]] = {}

    def fit(self, tools: Iterable[OfferedTool], *, plain: bool) -> list[FittedFunction]:
        """Return the functions of these tools, fitted as little as possible, or `plain`."""
        return [self._fit(tool, plain=plain) for tool in tools]

    def _fit(self, tool: OfferedTool, *, plain: bool) -> FittedFunction:
        key = id(tool.input_schema), tool.name, plain  # of a schema that the entry keeps alive
        known = self._known.get(key)
        if known and known[0].input_schema is tool.input_schema and known[0].description == tool.description:
            return known[1]
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        fitted = fit_function(tool, plain=plain)
        self._known[key] = tool, fitted
        return fitted


class _Fitter:
    """Fits one schema as OpenAI demands it."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._left = _MOST_NODES
        self._open: list[str] = []

    def fit_root(self) -> tuple[JsonObject, Changes]:
        """Return the schema of the arguments of a function: an object without alternatives."""
        return self.fit({**self._root, "type": "object"}, 0)

    def fit(self, schema: Any, depth: int) -> tuple[JsonObject, Changes]:
        """Return the fitted schema, and what is to be undone."""
        self._left -= 1
        allows_all = not isinstance(schema, dict) or self._left < 0 or depth > _MOST_DEPTH
        resolved, opened = self._resolve({} if allows_all else schema)
        try:
            return self._fit_resolved(resolved, depth)
        finally:
            del self._open[len(self._open) - opened :]

    def _resolve(self, schema: JsonObject) -> tuple[JsonObject, int]:
        """Return the schema with what its reference names, and how many references were opened."""
        opened = 0
        while isinstance(reference := schema.get("$ref"), str):
            beside = {name: value for name, value in schema.items() if name != "$ref"}
            target = self._look_up(reference)
            if reference in self._open:  # a recursion ends here
                shape: JsonObject = {word: target[word] for word in ("type", "title", "description") if word in target}
                return {**shape, **beside}, opened
            self._open.append(reference)
            opened += 1
            schema = {**target, **beside}
        return schema, opened

    def _look_up(self, reference: str) -> JsonObject:
        """Return the schema that a reference within the document names; one that allows all if there is none."""
        found: Any = self._root
        if not reference.startswith("#"):
            return {}
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict):
                found = found.get(name)
            else:
                return {}
        return found if isinstance(found, dict) else {}

    def _fit_resolved(self, schema: JsonObject, depth: int) -> tuple[JsonObject, Changes]:
        changes = Changes()
        fitted = {name: value for name, value in schema.items() if name not in _LEFT_OUT}
        for word in _ONE:
            if isinstance(fitted.get(word), dict):
                fitted[word], _ = self.fit(fitted[word], depth + 1)
        for word in _NAMED:
            if isinstance(fitted.get(word), dict):
                fitted[word] = {name: self.fit(inner, depth + 1)[0] for name, inner in fitted[word].items()}
        self._fit_items(fitted, changes, depth)
        self._fit_properties(fitted, changes, depth)
        self._fit_alternatives(fitted, changes, depth)
        if depth == 0:
            _flatten_alternatives(fitted)
        return fitted, changes

    def _fit_items(self, fitted: JsonObject, changes: Changes, depth: int) -> None:
        items = fitted.get("items")
        if isinstance(items, list):  # an array of fixed places, as it was written before 2020
            items = {"anyOf": items} if items else {}
        if isinstance(items, dict) or "array" in _list_types(fitted):
            fitted["items"], inner = self.fit(items, depth + 1)
            changes.items = inner or None

    def _fit_properties(self, fitted: JsonObject, changes: Changes, depth: int) -> None:
        properties = fitted.get("properties")
        if not isinstance(properties, dict):
            properties = {}
        if depth == 0 or "properties" in fitted:
            fitted["properties"] = {}
        new: dict[str, str] = {}
        for name, inner in properties.items():
            if inner is False:
                continue
            key = new[name] = _fit_key(name, properties.keys() | fitted["properties"].keys())
            schema, undone = self.fit(inner, depth + 1)
            if key != name:
                changes.names[key] = name
                _tell(schema, f"Its name is {json.dumps(name, ensure_ascii=False)}.")
            if undone:
                changes.inner[key] = undone
            fitted["properties"][key] = schema
        if isinstance(required := fitted.get("required"), list):
            given = {key: True for name in required if isinstance(name, str) and (key := new.get(name, name))}
            fitted["required"] = [key for key in given if key in new.values() or "properties" not in fitted]
        elif "required" in fitted:
            del fitted["required"]  # in the oldest drafts it was a boolean

    def _fit_alternatives(self, fitted: JsonObject, changes: Changes, depth: int) -> None:
        for word in _SEVERAL:
            if isinstance(alternatives := fitted.get(word), list):
                fitted[word] = []
                for alternative in alternatives:
                    if alternative is not False:
                        schema, undone = self.fit(alternative, depth + 1)
                        fitted[word].append(schema)
                        changes.add(undone)


class _PlainFitter(_Fitter):
    """Fits one schema to the keywords of Gemini's API."""

    def fit_root(self) -> tuple[JsonObject, Changes]:
        fitted, changes = super().fit_root()
        if "properties" not in fitted:
            fitted["properties"] = {_UNUSED: {"type": "string", "description": "Leave this out."}}
            changes.added = _UNUSED
        return fitted, changes

    def _fit_resolved(self, schema: JsonObject, depth: int) -> tuple[JsonObject, Changes]:
        schema = _join_all_of(schema, self._resolve_alone)
        alternatives = [one for word in ("anyOf", "oneOf") for one in _list_schemas(schema.get(word))]
        types = [one for one in _list_types(schema) if one != "null"]
        if depth > 0 and not alternatives and len(types) > 1:
            alternatives = [{**schema, "type": one} for one in types]
        alternatives = [one for one in alternatives if _list_types(one) != ["null"] and one.get("const", 0) is not None]
        if depth > 0 and alternatives:
            return self._fit_choice(schema, alternatives, depth)
        fitted, changes = super()._fit_resolved(schema, depth)
        plain: JsonObject = {"type": types[0] if types else _guess_type(schema)}
        plain |= {name: fitted[name] for name in _PLAIN_WORDS if name in fitted}
        _tell_the_rest(plain, schema)
        if plain["type"] == "array":
            if "items" not in fitted:
                fitted["items"], changes.items = self.fit({}, depth + 1)
            plain["items"] = fitted["items"]
        elif plain["type"] == "object" and (depth == 0 or fitted.get("properties")):
            plain |= {word: fitted[word] for word in ("properties", "required") if fitted.get(word)}
        elif plain["type"] in {"object", "any"}:
            _tell(plain, f"A JSON {'object' if plain['type'] == 'object' else 'value'}, written as text.")
            plain["type"], changes.as_text = "string", True
        return plain, changes

    def _fit_choice(self, schema: JsonObject, given: list[JsonObject], depth: int) -> tuple[JsonObject, Changes]:
        """Return a schema with alternatives; beside them Gemini allows nothing."""
        changes = Changes()
        fitted = []
        beside = {name: schema[name] for name in ("properties", "required", "description") if name in schema}
        for one in given:
            plain, undone = self.fit({**beside, **one}, depth + 1)
            changes.add(undone)
            fitted.append(plain)
        return (fitted[0] if len(fitted) == 1 else {"anyOf": fitted}), changes

    def _resolve_alone(self, schema: JsonValue) -> JsonObject:
        if not isinstance(schema, dict):
            return {}
        resolved, opened = self._resolve(schema)
        del self._open[len(self._open) - opened :]
        return resolved


def _fit_key(name: str, taken: Iterable[str]) -> str:
    """Return a name of a property that endpoints accept, and that no other has."""
    if 0 < len(name) <= _LONGEST_KEY and not _BAD_IN_KEY.search(name):
        return name
    base = _BAD_IN_KEY.sub("_", name)[: _LONGEST_KEY - 4].strip("_") or "property"
    used = set(taken)
    return next(key for number in range(len(used) + 1) if (key := f"{base}_{number}" if number else base) not in used)


def _flatten_alternatives(schema: JsonObject) -> None:
    """Take the properties of alternatives into the object itself, and drop what may not stand beside them."""
    needed: list[str] = []
    for word in ("allOf", "anyOf", "oneOf"):
        alternatives = _list_schemas(schema.pop(word, None))
        for one in alternatives:
            _flatten_alternatives(one)
            for name, inner in one.get("properties", {}).items():
                schema["properties"].setdefault(name, inner)
        required = [one.get("required", []) for one in alternatives]
        if word == "allOf":
            common = [name for names in required for name in names]
        else:
            common = [name for name in (required or [[]])[0] if all(name in names for names in required)]
            needed = [" and ".join(names) for names in required if names] or needed
        if common:
            schema["required"] = list(dict.fromkeys([*schema.get("required", []), *common]))
    for word in ("not", "enum", "const"):
        schema.pop(word, None)
    if len(set(needed)) > 1:
        _tell(schema, f"It needs {' or '.join(dict.fromkeys(needed))}.")


def _join_all_of(schema: JsonObject, resolve: Callable[[JsonValue], JsonObject]) -> JsonObject:
    """Return the schema with all that `allOf` demands in itself; of two values of one keyword, the first stays."""
    joined = schema
    for one in _list_schemas(schema.get("allOf")):
        other = _join_all_of(resolve(one), resolve)
        properties = {**other.get("properties", {}), **joined.get("properties", {})}
        required = [*joined.get("required", []), *other.get("required", [])]
        joined = {**other, **joined}
        if properties:
            joined["properties"] = properties
        if required:
            joined["required"] = required
    return {name: value for name, value in joined.items() if name != "allOf"}


def _list_schemas(value: JsonValue) -> list[JsonObject]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _list_types(schema: JsonObject) -> list[str]:
    types = schema.get("type")
    return [types] if isinstance(types, str) else [one for one in types or () if isinstance(one, str)]


def _guess_type(schema: JsonObject) -> str:
    """Return the type of a schema that names none; `any` where nothing tells."""
    if "properties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    values = [schema["const"]] if "const" in schema else schema.get("enum") or [None]
    names: Mapping[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
    kinds = {names.get(type(value), "any") for value in values}
    return kinds.pop() if len(kinds) == 1 else "any"


def _tell_the_rest(plain: JsonObject, schema: JsonObject) -> None:
    """Say in the description what the keywords of a plain schema cannot."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        texts = [value for value in values if isinstance(value, str) and value]
        if plain["type"] == "string" and len(texts) == len([value for value in values if value is not None]):
            plain["enum"] = texts
        else:
            _tell(plain, f"One of: {', '.join(json.dumps(value, ensure_ascii=False) for value in values[:50])}.")
    for word, sentence in _TOLD.items():
        value = schema.get(word)
        if word == "format" and value in _PLAIN_FORMATS:
            plain[word] = value
        elif word in schema and value is not False and not isinstance(value, dict | list):
            _tell(plain, sentence.format(value if word == "format" else json.dumps(value, ensure_ascii=False)))


def _tell(schema: JsonObject, sentence: str) -> None:
    description = schema.get("description")
    schema["description"] = f"{description.rstrip()} {sentence}" if isinstance(description, str) else sentence
