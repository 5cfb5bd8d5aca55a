"""The commands `tools import` and `init`: they write registry and settings, and overwrite nothing."""

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from agent_runtime.builtin.servers import SERVERS
from agent_runtime.cli import output
from agent_runtime.cli.explaining import command_words
from agent_runtime.cli.foreign_servers import Imported, convert_servers, read_servers
from agent_runtime.cli.running import PERSON_NEEDED
from agent_runtime.cli.service import settings_of
from agent_runtime.config import parse_yaml
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.registry.file import load_registry

_EMPTY_LIST = re.compile(r"^tool_registry:[ \t]*(?:\[[ \t]*\]|null|~)?[ \t]*(?:#[^\n]*)?$", re.MULTILINE)
_FIRST_ITEM = re.compile(r"^tool_registry:[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\n)*(?P<indent> *)- ", re.MULTILINE)


def import_servers(options: argparse.Namespace) -> int:
    """Show the entries for the servers of another client, and add them to the registry if the person wants that."""
    settings, _ = settings_of(options)
    if settings.tool_registry_yaml is not None:
        raise ConfigurationError("The registry comes from the environment, so nothing can be added to a file of it.")
    origin, registry = str(options.file), settings.tool_registry
    servers = read_servers(sys.stdin.read() if origin == "-" else _read(Path(origin)), origin)
    old = _read(registry) if registry.exists() else "tool_registry:\n"
    present = load_registry(registry, SERVERS, old, origin=str(registry))
    imported = convert_servers(servers, [entry.id for entry in present])
    new = append_entries(old, imported.entries, str(registry))
    load_registry(registry, SERVERS, new, origin=str(registry))  # refuses what could not be read again
    written = bool(imported.entries) and _may_write(options, imported, registry)
    if written:
        try:
            registry.write_text(new, encoding="utf-8")
        except OSError as error:
            raise _make_write_error(error) from error
    if options.json:
        facts = {"registry": str(registry), "entries": imported.entries, "skipped": imported.skipped}
        output.document({**facts, "variables": imported.variables, "written": written})
    else:
        _tell(imported, registry, written=written)
    return 0 if written or not imported.entries else PERSON_NEEDED


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _make_write_error(error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{error.filename}: cannot be written: {error.strerror}.")


def append_entries(text: str, entries: Sequence[dict[str, Any]], origin: str) -> str:
    """Return the text of a registry with entries after its last one. Everything else stays as it is.

    Raises: ConfigurationError if the list cannot be continued at the end of the text.
    """
    if not entries:
        return text
    before = parse_yaml(text, origin)
    first = _FIRST_ITEM.search(text)
    block = textwrap.indent(format_entries(entries), first["indent"] if first else "  ")
    if first:
        new = f"{text.rstrip()}\n\n{block}"
    else:
        new = _EMPTY_LIST.sub(lambda _: f"tool_registry:\n{block.rstrip()}", text, count=1)
    wanted = {**before, "tool_registry": [*(before.get("tool_registry") or ()), *entries]}
    if parse_yaml(new, origin) != wanted:
        raise ConfigurationError(f"{origin}: its list cannot be continued at its end. Add this by hand:\n{block}")
    return new


def format_entries(entries: Sequence[dict[str, Any]]) -> str:
    """Return entries as items of a YAML list, with an empty line between them."""
    return "\n".join(yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=120) for entry in entries)


def _may_write(options: argparse.Namespace, imported: Imported, registry: Path) -> bool:
    """Show the entries and ask the person, unless `--yes` answers. Without a person the answer is no."""
    if not options.json:
        output.result(format_entries(imported.entries).rstrip("\n"))
    if options.yes:
        return True
    return output.is_person_there() and bool(output.ask_yes_or_no(f"Add this to {registry}?"))


def _tell(imported: Imported, registry: Path, *, written: bool) -> None:
    for name, why in imported.skipped.items():
        output.say(f"Left out {name}: {why}.")
    if not imported.entries:
        output.say("There is nothing to add.")
        return
    if imported.variables:
        output.say("Set these variables before you start; their values are in the file that you import:")
        for name, place in imported.variables.items():
            output.say(f"  export {name}=...    # {place}")
    words = " ".join(command_words())
    if written:
        ids = ", ".join(entry["id"] for entry in imported.entries)
        output.say(f"Added {ids} to {registry}. Check: {words} doctor. A running service reads it with: {words} reload")
    else:
        output.say(f"Nothing was written. Add it to {registry} with --yes.")


def init(options: argparse.Namespace) -> int:
    """Write a registry, settings and a folder for files where they are missing."""
    folder: Path = options.folder
    made, kept = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            place = folder / name
            if place.exists() or place.is_symlink():
                kept.append(place)
                continue
            if text is None:
                place.mkdir()
            else:
                place.write_text(text, encoding="utf-8")
            made.append(place)
    except OSError as error:
        raise _make_write_error(error) from error
    if options.json:
        output.document({"made": list(map(str, made)), "kept": list(map(str, kept))})
        return 0
    for place in made:
        output.result(f"made {place}")
    for place in kept:
        output.say(f"{place} exists, and stays as it is.")
    example = "Write a message saying hello to a file called hello.txt"
    output.say(f"Try it{'' if folder == Path() else f' in {folder}'}: {' '.join(command_words())} run {example!r}")
    return 0


_REGISTRY = """\
# The MCP servers that plans may use. `agent-runtime tools import FILE` adds those of another client;
# docs/how-to/registry.md explains every field. Secrets belong into the environment: "${env:NAME}".

tool_registry:
  - id: filesystem
    type: builtin
    config: {server: filesystem, root: ./files}   # nothing outside root can be read or written

  - id: todo
    type: builtin
    config: {server: todo}

  - id: calculator
    type: builtin
    config: {server: calculator}

  - id: text
    type: builtin
    config: {server: text}

  # A server of your own, as a command:
  # - id: time
  #   type: local_stdio
  #   config: {command: uvx, args: ["mcp-server-time==2026.1.26"]}
"""

_SETTINGS = """\
# Settings of Agent Runtime. docs/reference/configuration.md lists all of them, with their defaults.

# A language model that makes plans. Without one a small planner works offline.
# openai:
#   api_key: "${env:OPENAI_API_KEY}"
#   base_url: "http://127.0.0.1:11434/v1"   # any OpenAI-compatible endpoint, such as Ollama
#   model: ""

data_dir: data            # tasks and their journals
"""

_FILES = {"tool_registry.yaml": _REGISTRY, "config.yaml": _SETTINGS, "files": None}
"""The files of a new project with their text; None: a folder."""
