"""Advise against variables in the notations of other MCP clients, such as `${TOKEN}`, which are not replaced here."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from agent_runtime.config import correct_placeholders
from agent_runtime.domain.tools import HttpServer, StdioServer, ToolServer
from agent_runtime.registry.advice import Advice

_SHELLS = frozenset({"sh", "ash", "bash", "dash", "fish", "ksh", "zsh"})
"""Commands that expand variables in their arguments."""


def advise_on_placeholders(entries: Iterable[ToolServer]) -> list[Advice]:
    """Return advice on the variables in notations of other clients in enabled entries."""
    return [
        Advice(entry.id, f"{place}: {what}")
        for entry in entries
        if entry.enabled
        for place, text in _list_texts(entry)
        for what in dict.fromkeys(correct_placeholders(text))
    ]


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
