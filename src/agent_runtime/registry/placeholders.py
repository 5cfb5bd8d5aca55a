"""Find variables in the notations of other MCP clients, such as `${TOKEN}`, which are not replaced here."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from agent_runtime.domain.tools import HttpServer, StdioServer, ToolServer
from agent_runtime.registry.advice import Advice
from agent_runtime.text.escaping import one_line

_PLACEHOLDER = re.compile(
    r"\$\{\{[^{}]*\}\}"  # ${{ secrets.TOKEN }}
    r"|\$\{(?!(?:env|file):[^{}])[^{}]*\}"  # ${TOKEN}, ${TOKEN:-default}, ${input:token}, ${workspaceFolder}
    r"|(?<!\$)\{env:[^{}]*\}"  # {env:TOKEN}
)
_NAMED = re.compile(r"\$?\{\{?\s*(?:[a-z]+[:.])?(?P<name>[a-z_]\w*)\s*(?::?[-=?].*)?\}\}?", re.IGNORECASE | re.DOTALL)
_DOLLAR = re.compile(r"(?:\S*[\s=:])?\$[A-Z_][A-Z0-9_]+")
"""`$TOKEN` as a whole value, or at its end. It may be a password, so it is not shown."""

_LONGEST_SHOWN = 60
_SHELLS = frozenset({"sh", "ash", "bash", "dash", "fish", "ksh", "zsh"})
"""Commands that expand variables in their arguments."""


def without_placeholders(text: str) -> str:
    """Return the text without variables in the notations of other clients."""
    return _PLACEHOLDER.sub("", text)


def advise_on_placeholders(entries: Iterable[ToolServer]) -> list[Advice]:
    """Return advice on the variables in notations of other clients in enabled entries."""
    return [
        Advice(entry.id, f"{place}: {what}")
        for entry in entries
        if entry.enabled
        for place, text in _list_texts(entry)
        for what in dict.fromkeys(_correct(text))
    ]


def _correct(text: str) -> Iterator[str]:
    for match in _PLACEHOLDER.finditer(text):
        shown = one_line(match[0][:_LONGEST_SHOWN])
        named = _NAMED.fullmatch(match[0])
        instead = f": write ${{env:{named['name']}}}" if named else ""
        yield f"{shown} is not replaced, but handed over as it stands; {_OURS}{instead}"
    if _DOLLAR.fullmatch(text):
        yield f"a variable that is written as $NAME is not replaced, but handed over as it stands; {_OURS}"


_OURS = "only ${env:NAME} and ${file:/path} are replaced"


def _list_texts(entry: ToolServer) -> Iterator[tuple[str, str]]:
    """Yield the texts of an entry in which references are replaced, as (place, text)."""
    match entry:
        case StdioServer(config=config):
            yield "config.command", config.command
            if PurePath(config.command).name not in _SHELLS:
                yield from (("config.args", word) for word in config.args)
            yield from _label("config.env", config.env)
            yield "config.cwd", config.cwd or ""
        case HttpServer(config=config):
            yield "config.base_url", config.base_url
            yield from _label("config.headers", config.headers)
        case _:
            pass


def _label(place: str, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((f"{place}.{name}", value) for name, value in values.items())
