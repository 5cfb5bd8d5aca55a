"""Read tool_registry.yaml, the operator's list of MCP servers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from agent_runtime.config import (
    REGISTRY_VARIABLE,
    Settings,
    describe_expectation,
    describe_fault,
    describe_unknown_key,
    format_place,
    parse_yaml,
    read_yaml,
)
from agent_runtime.domain.errors import ConfigurationError, Fault, RegistryInvalidError
from agent_runtime.domain.tools import BuiltinServer, HttpServer, PythonServer, StdioServer, ToolServer
from agent_runtime.registry.known_servers import add_known_servers

_KEY = "tool_registry"
_TYPES: Mapping[str, type[BaseModel]] = {
    "local_stdio": StdioServer,
    "remote_http": HttpServer,
    "builtin": BuiltinServer,
    "python": PythonServer,
}
_ENTRY: TypeAdapter[ToolServer] = TypeAdapter(ToolServer)


def read_entries(settings: Settings, builtins: Collection[str], always: Iterable[str]) -> tuple[ToolServer, ...]:
    """Return the entries of the operator's registry, completed by `known_servers`.

    `builtins`: the names of the built-in servers. `always`: those that exist without being listed.
    Raises: ConfigurationError, as `load_registry`.
    """
    return add_known_servers(load_registry(settings.tool_registry, builtins, settings.tool_registry_yaml), always)


def load_registry(
    path: Path, builtins: Collection[str], text: str | None = None, *, origin: str = REGISTRY_VARIABLE
) -> tuple[ToolServer, ...]:
    """Return the entries of a registry file in order, with paths and references to secrets as written.

    `builtins`: the names that a built-in server may have. `text`: a registry that replaces the file, and comes from
    `origin`: the environment, unless another place is named.

    Raises: ConfigurationError with one line for each fault, naming the file, the entry, the field and the expected
    value.
    """
    origin = str(path) if text is None else origin
    if text is None and not path.exists():
        raise ConfigurationError(
            f"{path}: there is no such file. Create it with `agent-runtime init`, "
            f"name another with --registry or AGENT_RUNTIME_TOOL_REGISTRY, or give its text in {REGISTRY_VARIABLE}."
        )
    faults: list[Fault] = []
    servers = []
    entries = _entries(read_yaml(path) if text is None else parse_yaml(text, origin), faults)
    for index, entry in enumerate(entries):
        try:
            server = _ENTRY.validate_python(entry)
        except ValidationError as error:
            faults += [_fault(index, entry, details) for details in error.errors()]
        else:
            servers.append(server)
            if isinstance(server, BuiltinServer) and server.config.server not in builtins:
                faults.append(Fault(f"{_label(index, entry)}: config.server", f"must be {_one_of(builtins)}"))
    faults += _repeated_id_faults(entries)
    if faults:
        raise RegistryInvalidError(origin, faults)
    return tuple(servers)


def _one_of(names: Iterable[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} or {last}" if most else last


def _entries(document: Any, faults: list[Fault]) -> Sequence[Any]:
    if not isinstance(document, Mapping) or _KEY not in document:
        faults.append(Fault("", f"must have the key {_KEY!r} at the top, with a list of servers"))
    if not isinstance(document, Mapping):
        return ()
    faults += [
        Fault(str(key), _OF_OTHERS.get(key) or describe_unknown_key(key, [_KEY])) for key in document if key != _KEY
    ]
    entries = document.get(_KEY)
    if entries is not None and not isinstance(entries, list):
        faults.append(Fault(_KEY, "must be a list of servers, each beginning with '- id:'"))
        return ()
    return entries or ()


_OF_OTHERS = {
    "mcpServers": f"is how other clients list servers: here each is an item of the list {_KEY!r}, with its name as id, "
    f"a type ({' or '.join(_TYPES)}), and under config its command, args and env, or its base_url and headers"
}


_URL = "must begin with http:// or https://"


def _label(index: int, entry: Any) -> str:
    name = entry.get("id") if isinstance(entry, Mapping) else None
    return f"entry {name!r}" if isinstance(name, str) and name else f"{_KEY}[{index}]"


def _fault(index: int, entry: Any, details: ErrorDetails) -> Fault:
    label = _label(index, entry)
    location = details["loc"]
    match details["type"]:
        case "union_tag_not_found":
            return Fault(f"{label}: type", f"is missing; expected {' or '.join(_TYPES)}")
        case "union_tag_invalid":
            return Fault(f"{label}: type", f"must be {' or '.join(_TYPES)}")
    kind, *place = location or ("",)
    if not place:
        return Fault(label, describe_expectation(details))
    if details["type"] == "string_pattern_mismatch":
        wanted = "must be module:object, or the name of a module" if kind == "python" else _URL
        return Fault(f"{label}: {format_place(place)}", wanted)
    if place == ["config", "command"] and isinstance(details["input"], list):
        message = "must be the name of the program alone; its arguments are the list config.args"
        return Fault(f"{label}: config.command", message)
    field, _, message = describe_fault(_TYPES[str(kind)], place, details).partition(": ")
    return Fault(f"{label}: {field}", message)


def _repeated_id_faults(entries: Sequence[Any]) -> list[Fault]:
    first: dict[str, int] = {}
    faults = []
    for index, entry in enumerate(entries):
        name = entry.get("id") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and first.setdefault(name, index) != index:
            message = f"{name!r} is the id of {_KEY}[{first[name]}] too; ids must be unique"
            faults.append(Fault(f"{_KEY}[{index}]: id", message))
    return faults
