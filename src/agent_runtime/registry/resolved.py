"""Resolve the entries of the tool registry: absolute folders, and the identity of each server (G6).

This is done once, when the registry is loaded. A server then starts in exactly the resolved folder, and each call only
compares two digests.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from agent_runtime.config import Secrets, without_references
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.identity import ServerIdentity
from agent_runtime.domain.tools import (
    BuiltinConfig,
    BuiltinServer,
    HttpServer,
    PythonServer,
    StdioServer,
    ToolServer,
)
from agent_runtime.domain.values import JsonObject, JsonValue, digest_of_bytes
from agent_runtime.registry.python_modules import find_source
from agent_runtime.text.redaction import SCHEMES, named_arguments, names_credential, without_credentials


@dataclass(frozen=True, slots=True)
class ResolvedEntry:
    """A resolved entry.

    `place`: the file or folder of a built-in server, or None. `problem`: why the folder cannot be resolved, so that the
    server cannot start, or None.
    """

    server: ToolServer
    identity: ServerIdentity
    place: Path | None = None
    problem: str | None = None


class ShownValues:
    """Formats values of the configuration for journals and people.

    Secret parts are replaced by a keyed hash, which shows that a value changed without revealing it. `key`: a secret
    stored in the data directory.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def show(self, name: str, value: str) -> str:
        """Return the value of a field of this name, with secret parts replaced.

        The result depends on the text alone, so that the same entry always has the same identity.
        """
        if names_credential(name) and without_references(value).strip().lower() not in SCHEMES:
            return self.hide(value)
        shown = without_credentials(value)
        return value if shown == value else f"{shown} ({self.hide(value)})"

    def show_arguments(self, arguments: Iterable[str]) -> Iterator[JsonValue]:
        """Yield the arguments of a command with secrets replaced, found by their own or the preceding option's name."""
        for before, name, value in named_arguments(arguments):
            yield before + self.show(name, value)

    def hide(self, value: str) -> str:
        """Return the keyed hash of a value."""
        return "hidden:" + hmac.digest(self._key, f"registry-value\0{value}".encode(), sha256).hex()[:32]


class EntryResolver:
    """Resolves the entries of a registry file.

    `base_dir`: the base of relative paths. `place_of`: returns the file or folder of a built-in server.
    """

    def __init__(
        self, base_dir: Path, place_of: Callable[[BuiltinConfig], Path | None], secrets: Secrets, shown: ShownValues
    ) -> None:
        self._base_dir = base_dir
        self._place_of = place_of
        self._secrets = secrets
        self._shown = shown

    def resolve(self, entries: Iterable[ToolServer]) -> tuple[ResolvedEntry, ...]:
        """Return the entries with their identities, and with absolute folders without symbolic links."""
        return tuple(self._resolve_entry(entry) for entry in entries)

    def _resolve_entry(self, entry: ToolServer) -> ResolvedEntry:
        server, place, problem = entry, None, None
        try:
            match entry:
                case StdioServer():
                    server = self._with_folders(entry)
                case BuiltinServer() if found := self._place_of(entry.config):
                    place = found.resolve()
                case PythonServer():
                    server = self._with_source(entry)
                case _:
                    pass
        except (ConfigurationError, OSError, RuntimeError) as error:  # RuntimeError: a cycle of symbolic links
            problem = self._secrets.redactor.redact_message(str(error))
        facts = self._facts(entry, server, place)
        return ResolvedEntry(server, ServerIdentity(facts, entry.identity_of_form_1), place, problem)

    def _with_folders(self, entry: StdioServer) -> StdioServer:
        folder = (self._base_dir / self._secrets.expand(entry.config.cwd or ".")).resolve()
        sandbox = {
            name: tuple(str((self._base_dir / path).absolute()) for path in getattr(entry.sandbox, name))
            for name in ("read", "write")
        }
        return entry.model_copy(
            update={
                "config": entry.config.model_copy(update={"cwd": str(folder)}),
                "sandbox": entry.sandbox.model_copy(update=sandbox),
            }
        )

    def _with_source(self, entry: PythonServer) -> PythonServer:
        """Return the entry with its folder, and with the digest of the file that will run.

        Raises: ConfigurationError if there is no such file, or if it is not the one that the entry names.
        """
        config = entry.config
        folder = (self._base_dir / (config.folder or ".")).resolve()
        file = find_source(config.module, folder)
        source = digest_of_bytes(file.read_bytes())
        if config.source not in {None, source}:
            raise ConfigurationError(f"{file} is another one than config.source names: its digest is {source}")
        return entry.model_copy(update={"config": config.model_copy(update={"folder": str(folder), "source": source})})

    def _facts(self, entry: ToolServer, server: ToolServer, place: Path | None) -> JsonObject:
        """Return the facts of a server's identity. A folder with a secret in it is as written, with a keyed hash."""
        facts: JsonObject = {"type": server.type}
        match server:
            case StdioServer(config=config, sandbox=sandbox):
                written, folder = self._written_folder(entry), config.cwd or ""
                facts |= {
                    "command": self._shown.show("", config.command),
                    "args": list(self._shown.show_arguments(config.args)),
                    "cwd": folder if written is None else f"{written} ({self._shown.hide(folder)})",
                    "env": {name: self._shown.show(name, value) for name, value in config.env.items()},
                    "sandbox": sandbox.model_dump(mode="json"),
                }
            case HttpServer(config=config):
                facts |= {
                    "base_url": self._shown.show("", config.base_url),
                    "headers": {name: self._shown.show(name, value) for name, value in config.headers.items()},
                }
            case BuiltinServer(config=config):
                facts |= {"server": config.server} | ({} if place is None else {"root": str(place)})
            case PythonServer(config=config):
                facts |= config.model_dump(mode="json")
        return facts | {"scope": server.scope, "trust": server.trust}

    @staticmethod
    def _written_folder(entry: ToolServer) -> str | None:
        """Return the folder as written if it references a secret, else None."""
        written = entry.config.cwd if isinstance(entry, StdioServer) else None
        return written if written and without_references(written) != written else None
