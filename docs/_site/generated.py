"""Generates parts of the documentation from the application. mkdocs calls the functions `on_...`.

A page includes a part with a line `<!-- generated: NAME -->`; `PARTS` has the names.
"""

import argparse
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from agent_runtime.api.app import create_app
from agent_runtime.cli.arguments import build_parser
from agent_runtime.config import Secrets, Settings
from agent_runtime.domain.events import EVENTS, Event

ROOT = Path(__file__).parents[2]
log = logging.getLogger("mkdocs.hooks.generated")

_ASKED = re.compile(r"^<!-- generated: (\S+)(?: (.+))? -->$", re.MULTILINE)
_LOADED = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")
_FOREIGN = re.compile(r"(?:https?:)?//")
_ERRORS_FROM = 400


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the generated parts into a page. Raises: KeyError for an unknown part."""
    return _ASKED.sub(lambda asked: PARTS[asked[1]](asked[2] or ""), markdown)


def on_post_build(config: Mapping[str, Any], **_: Any) -> None:
    """Warn of each page that loads external assets. With `--strict` a warning fails the build."""
    site = Path(config["site_dir"])
    for page in sorted(site.rglob("*.html")):
        for address in _loaded_by(page.read_text(encoding="utf-8")):
            log.warning("%s loads %s: pages must load nothing from elsewhere", page.relative_to(site), address)
    for sheet in sorted(site.rglob("*.css")):
        for address in _LOADED.findall(sheet.read_text(encoding="utf-8")):
            log.warning("%s loads %s: pages must load nothing from elsewhere", sheet.relative_to(site), address)


def _loaded_by(text: str) -> Iterator[str]:
    """Yield the external addresses from which a page loads assets. Links are not among them."""
    yield from _LOADED.findall(text)
    tags = _Tags()
    tags.feed(text)
    for tag, attributes in tags.found:
        if "mermaid" in (attributes.get("class") or "").split():
            yield "the code of mermaid (draw an SVG instead)"
        names = ("src", "srcset", "data", "poster", *(("href",) if tag in {"link", "use", "image"} else ()))
        for name in names:
            address = attributes.get(name) or ""
            if _FOREIGN.match(address) and attributes.get("rel") != "canonical":
                yield address


class _Tags(HTMLParser):
    """Collects every start tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@cache
def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document of a service that requires keys."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"data_dir": folder, "auth": {"keys": [f"documentation sha256:{'0' * 64} admin"]}}
        )
        return create_app(settings, Secrets()).openapi()


def list_operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every call as its method and path (`GET /v1/tasks`), with its entry in the OpenAPI document."""
    for path, operations in describe_api()["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _operation(name: str) -> str:
    operation = dict(list_operations())[name]
    parts = [_scopes(operation), _parameters(operation), _body(operation), _answers(operation)]
    return "\n\n".join(part for part in parts if part)


def _scopes(operation: Mapping[str, Any]) -> str:
    scopes = [f"`{scope}`" for needed in operation.get("security", []) for scope in needed["key"]]
    return f"**Scope**: {' or '.join(scopes)}" if scopes else "**Scope**: none; open to everybody"


def _parameters(operation: Mapping[str, Any]) -> str:
    given = [
        (f"`{one['name']}`", one["in"], _kind(one["schema"]), one.get("description", ""))
        for one in operation.get("parameters", [])
        if one["in"] != "path"
    ]
    return _table(("parameter", "in", "type", "meaning"), given) if given else ""


def _body(operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody")
    if not body:
        return ""
    optional = "" if body.get("required") else " (may be left out)"
    schema = body["content"]["application/json"]["schema"]
    shapes = [one for one in schema.get("anyOf", [schema]) if "$ref" in one]
    fields = [_fields(describe_api()["components"]["schemas"][one["$ref"].rsplit("/", 1)[-1]]) for one in shapes]
    return "\n\n".join([f"**Body**{optional}: {' or '.join(map(_kind, shapes))}", *fields])


def _answers(operation: Mapping[str, Any]) -> str:
    accepted, refused = [], []
    for status, answer in sorted(operation["responses"].items()):
        if int(status) >= _ERRORS_FROM:
            refused.append(status)
            continue
        shapes = [_kind(content["schema"]) for content in answer.get("content", {}).values() if content.get("schema")]
        accepted.append(" ".join((status, *shapes)))
    text = f"**Answers**: {', '.join(accepted)}"
    return f"{text}; refused with [{', '.join(refused)}](errors.md#by-status)" if refused else text


def _schemas(_: str) -> str:
    """Describe every shape of a body or an answer."""
    parts = []
    for name, schema in sorted(describe_api()["components"]["schemas"].items()):
        parts.append(f"## {name}")
        if text := schema.get("description"):
            parts.append(_paragraphs(text))
        parts.append(_fields(schema) if "properties" in schema else _kind(schema))
    return "\n\n".join(parts)


def _fields(schema: Mapping[str, Any]) -> str:
    rows = []
    for name, field in schema["properties"].items():
        needed = "required" if name in schema.get("required", ()) else _default(field)
        rows.append((f"`{name}`", _kind(field), needed, field.get("description", "")))
    return _table(("field", "type", "default", "meaning"), rows)


def _default(field: Mapping[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else "may be left out"


def _kind(schema: Mapping[str, Any]) -> str:
    """Describe the type of a JSON Schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](schemas.md#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return f"{kind}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum")
    if least is not None and most is not None:
        return f" ({least} to {most})"
    return f" (from {least})" if least is not None else ""


def _events(_: str) -> str:
    """Describe the fields of every event."""
    return "\n\n".join(part for event in EVENTS.values() for part in _event(event))


def _event(event: type[Event]) -> Iterator[str]:
    yield f"## {event.type}"
    if event.__doc__ and event.__doc__ != Event.__doc__:
        yield _paragraphs(event.__doc__)
    schema = event.model_json_schema()
    rows = [
        (f"`{name}`", re.sub(r"\[(\w+)\]\([^)]*\)", r"\1", _kind(field)), _requirement(schema, name))
        for name, field in schema["properties"].items()
    ]
    yield _table(("field of `data`", "type", "always there"), rows)
    statuses = ", ".join(f"`{status}`" for status in sorted(event.follows)) or "none: it comes first"
    end = " It ends the task." if event.ends_task else ""
    yield f"Written while the task is in the status {statuses}.{end}"


def _requirement(schema: Mapping[str, Any], name: str) -> str:
    return "yes" if name in schema.get("required", ()) else "with a default"


def _paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _file(name: str) -> str:
    """Return a file of the repository as a code block."""
    return f"```yaml\n{(ROOT / name).read_text(encoding='utf-8').rstrip()}\n```"


def _commands(_: str) -> str:
    """Return the help of every command."""
    os.environ["COLUMNS"] = "100"  # the width for argparse
    return "\n\n".join(_help(build_parser()))


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```"
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of commands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _help(command)


PARTS: dict[str, Callable[[str], str]] = {
    "operation": _operation,
    "schemas": _schemas,
    "events": _events,
    "file": _file,
    "commands": _commands,
}
