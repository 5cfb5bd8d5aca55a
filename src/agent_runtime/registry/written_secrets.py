"""Redact literal secrets in the registry, and advise against them and against secrets in arguments."""

from collections.abc import Iterable, Iterator

from agent_runtime.config import variables_in, without_placeholders, without_references
from agent_runtime.domain.tools import HttpServer, StdioServer, ToolServer
from agent_runtime.registry.advice import Advice
from agent_runtime.text.redaction import Redactor, named_arguments


def remember_written_secrets(entries: Iterable[ToolServer], redactor: Redactor) -> list[Advice]:
    """Add the literal secrets in entries to the redactor, and return advice to the operator."""
    found = []
    for entry in entries:
        # Secrets of disabled entries are redacted too.
        places = [place for place, name, text in _texts(entry) if redactor.remember_literal(name, text)]
        messages = [*(f"{place} {_WRITTEN_OUT}" for place in dict.fromkeys(places)), *_advice_on_arguments(entry)]
        if entry.enabled:
            found += [Advice(entry.id, message) for message in messages]
    return found


_WRITTEN_OUT = (
    "contains a literal secret: put it into the environment or into a file, and write ${env:NAME} "
    "or ${file:/path} in its place"
)


def _texts(entry: ToolServer) -> Iterator[tuple[str, str, str]]:
    """Yield the texts of an entry without references, as (place, name, text)."""
    match entry:
        case StdioServer(config=config):
            for name, value in config.env.items():
                yield f"config.env.{name}", name, _strip_references(value)
            for place, words in (("config.command", config.command.split()), ("config.args", config.args)):
                for _, name, value in named_arguments(words):
                    yield place, name, _strip_references(value)
        case HttpServer(config=config):
            for name, value in config.headers.items():
                yield f"config.headers.{name}", name, _strip_references(value)
            yield "config.base_url", "", _strip_references(config.base_url)
        case _:
            pass


def _strip_references(text: str) -> str:
    return without_placeholders(without_references(text))


def _advice_on_arguments(entry: ToolServer) -> Iterator[str]:
    words = (entry.config.command, *entry.config.args) if isinstance(entry, StdioServer) else ()
    if any(without_references(word) != word for word in words):
        names = sorted({name for word in words for name in variables_in(word)})
        what = f"the secret {', '.join(names)}" if names else "a secret"
        yield (
            f"config.args contains {what}, which every user of this machine can read in the list of processes (ps): "
            "put it into config.env"
        )
