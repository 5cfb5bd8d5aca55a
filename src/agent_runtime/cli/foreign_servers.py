"""The servers in the configuration of another MCP client, as entries of our registry."""

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.config import convert_placeholders, variables_in
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.text.redaction import SCHEMES, Redactor, named_arguments, names_credential

_TEXT_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TEXT_OR_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)
_KEYS = ("mcpServers", "servers", "context_servers")
"""The keys of the list: of Claude Desktop, Cursor and most others; of VS Code; of Zed."""

_SCHEME = re.compile(
    rf"(?P<scheme>(?:{'|'.join(sorted(SCHEMES - {''}))})\s+)(?P<secret>\S.*)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Imported:
    """The entries to add, what was left out with the reason, and the variables to set, with what each is for."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def read_servers(text: str, origin: str) -> Mapping[str, Any]:
    """Return the servers by name in a JSON document, in which comments and trailing commas are allowed.

    Raises: ConfigurationError if there are none.
    """
    plain = _TEXT_OR_COMMA.sub(_keep_text, _TEXT_OR_COMMENT.sub(_keep_text, text.lstrip("\ufeff")))
    try:
        document = json.loads(plain)
    except ValueError as error:
        raise ConfigurationError(f"{origin}: is not JSON: {error}.") from None
    for part in (document, document.get("mcp") if isinstance(document, dict) else None):
        for key in _KEYS:
            if isinstance(part, dict) and isinstance(part.get(key), dict):
                found: dict[str, Any] = part[key]
                return found
    raise ConfigurationError(f"{origin}: has no servers: expected an object with the key {' or '.join(_KEYS)}.")


def _keep_text(match: re.Match[str]) -> str:
    return match[1] or ""


def convert_servers(servers: Mapping[str, Any], known: Collection[str]) -> Imported:
    """Convert the servers to entries. Those whose id is in `known` are left out; secrets become `${env:NAME}`."""
    imported = Imported()
    for name, server in servers.items():
        server_id = _make_id(name)
        taken = {*known, *(entry["id"] for entry in imported.entries)}
        if server_id in taken:
            imported.skipped[name] = f"the registry has an entry {server_id!r} already"
        elif not isinstance(server, dict) or not (_is_text(server.get("command")) or _is_text(_url_of(server))):
            imported.skipped[name] = "it has neither a command nor a url"
        else:
            imported.entries.append(_convert(name, server_id, server, imported.variables))
    return imported


def _make_id(name: str) -> str:
    """Return an id of the registry: a letter, then up to 63 letters, digits, `_` and `-`."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "server"
    return (plain if plain[0].isalpha() else f"mcp-{plain}")[:64]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _url_of(server: Mapping[str, Any]) -> Any:
    return server.get("url") or server.get("serverUrl") or server.get("httpUrl")


def _convert(name: str, server_id: str, server: Mapping[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": server_id, **({"name": name} if name != server_id else {})}
    if server.get("disabled") is True or server.get("enabled") is False:
        entry["enabled"] = False
    hidden = _Hidden(server_id, variables)
    if _is_text(server.get("command")):
        program, *words = _split(server["command"])
        args = [*words, *map(str, server.get("args") or ())]
        config: dict[str, Any] = {"command": hidden.convert(program, "the command")}
        if args:
            config["args"] = list(hidden.convert_arguments(args))
        if env := _texts(server.get("env")):
            config["env"] = {key: hidden.hide(key, value, f"env.{key}", key) for key, value in env.items()}
        if _is_text(server.get("cwd")):
            config["cwd"] = hidden.convert(server["cwd"], "cwd")
        return {**entry, "type": "local_stdio", "config": config}
    config = {"base_url": hidden.hide("", _url_of(server), "url", f"{hidden.prefix}_URL")}
    if headers := _texts(server.get("headers")):
        config["headers"] = {
            key: hidden.hide(key, value, f"headers.{key}", f"{hidden.prefix}_{_make_variable(key)}")
            for key, value in headers.items()
        }
    return {**entry, "type": "remote_http", "config": config}


def _split(command: str) -> list[str]:
    """Return the program and its arguments, where a command is a whole command line."""
    try:
        words = shlex.split(command)
    except ValueError:
        return [command]
    return words if len(words) > 1 and "/" not in words[0] else [command]


def _texts(value: Any) -> dict[str, str]:
    return {str(key): _to_text(one) for key, one in value.items()} if isinstance(value, dict) else {}


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _make_variable(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_").upper()


class _Hidden:
    """Puts variables in the place of the secrets of one server, and notes them in `variables`."""

    def __init__(self, server_id: str, variables: dict[str, str]) -> None:
        self.prefix = _make_variable(server_id.replace("-", "_"))
        self._server_id = server_id
        self._variables = variables

    def convert(self, text: str, place: str) -> str:
        """Return the text with variables in our notation."""
        converted = convert_placeholders(text)
        for name in sorted(variables_in(converted)):
            self._variables.setdefault(name, f"{self._server_id}, {place}")
        return converted

    def hide(self, name: str, text: str, place: str, variable: str) -> str:
        """Return the text, with a reference to a variable in the place of a secret."""
        converted = self.convert(text, place)
        if variables_in(converted) or not Redactor().remember_literal(name, converted):
            return converted
        scheme = _SCHEME.fullmatch(converted) if names_credential(name) else None
        before = scheme["scheme"] if scheme else ""
        told = f"{place} without {before.strip()!r}" if before else place
        self._variables.setdefault(variable, f"{self._server_id}, {told}")
        return f"{before}${{env:{variable}}}"

    def convert_arguments(self, args: list[str]) -> Iterator[str]:
        """Yield the arguments of a command."""
        for number, (before, name, value) in enumerate(named_arguments(args), 1):
            variable = f"{self.prefix}_{_make_variable(name) or f'ARGUMENT_{number}'}"
            yield before + self.hide(name, value, "args", variable)
