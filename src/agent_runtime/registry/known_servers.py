"""Policies for the tools of two public npm packages.

A registry entry without `tools` gets the policy of the package that it runs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, Denial, Effect, StdioServer, ToolPolicy, ToolServer


@dataclass(frozen=True, slots=True)
class KnownPackage:
    """An npm package: its command, and the policies and denials for its tools."""

    name: str
    command: str
    tools: Mapping[str, ToolPolicy]
    deny: tuple[Denial, ...] = ()


def _local(effect: Effect, *, idempotent: bool | None = None) -> ToolPolicy:
    return ToolPolicy(effect=effect, idempotent=idempotent, open_world=False)


_READ = _local(Effect.READ)
_TRUE = "[Tt][Rr][Uu][Ee]"
"""A glob for `true`. That server also accepts it as text, in upper or lower case."""


def _writes_files(argument: str, value: str) -> Denial:
    return Denial(tool="imageFetch", arguments={argument: value}, reason="it writes files of images")


PACKAGES = (
    KnownPackage(
        "@modelcontextprotocol/server-filesystem",
        "mcp-server-filesystem",
        {
            "read_*": _READ,
            "list_*": _READ,
            "search_files": _READ,
            "directory_tree": _READ,
            "get_file_info": _READ,
            "write_file": _local(Effect.WRITE, idempotent=True),
            "create_directory": _local(Effect.WRITE, idempotent=True),
            "*": ToolPolicy(open_world=False),
        },
    ),
    KnownPackage(
        "@kazuph/mcp-fetch",
        "mcp-fetch",
        {"*": ToolPolicy(effect=Effect.READ, open_world=True)},
        (
            _writes_files("images.output", "file"),
            _writes_files("images.output", "both"),
            _writes_files("saveImages", _TRUE),
            _writes_files("enableFetchImages", _TRUE),
        ),
    ),
)
_RUNNERS = frozenset({"npx", "bunx", "pnpx"})
_INSTALLERS = _RUNNERS | {"npm", "pnpm", "yarn", "bun", "deno", "uvx", "uv", "pipx", "docker", "podman"}


def add_known_servers(entries: Sequence[ToolServer], always: Iterable[str]) -> tuple[ToolServer, ...]:
    """Return the entries with the policies of known packages, followed by the built-in servers in `always`.

    A server of `always` is left out if an entry names it or has its id, so that `enabled: false` there disables it.
    """
    named = {entry.id for entry in entries}
    named |= {entry.config.server for entry in entries if isinstance(entry, BuiltinServer)}
    unlisted = [name for name in always if name not in named]
    return (*map(_with_known_policy, entries), *map(_builtin, unlisted))


def may_install(entry: ToolServer) -> bool:
    """Return whether the command may install its package at start. Killed meanwhile, npx leaves a broken install."""
    return isinstance(entry, StdioServer) and PurePath(entry.config.command).name in _INSTALLERS


def _builtin(name: str) -> BuiltinServer:
    return BuiltinServer(id=name, type="builtin", config=BuiltinConfig(server=name))


def _with_known_policy(entry: ToolServer) -> ToolServer:
    if not isinstance(entry, StdioServer) or entry.tools:
        return entry
    known = next((package for package in PACKAGES if _runs(entry, package)), None)
    if known is None:
        return entry
    return entry.model_copy(update={"tools": known.tools, "deny": (*entry.deny, *known.deny)})


def _runs(entry: StdioServer, package: KnownPackage) -> bool:
    command = PurePath(entry.config.command).name
    return command == package.command or (command in _RUNNERS and package.name in _packages(entry.config.args))


def _packages(args: Sequence[str]) -> Iterator[str]:
    """Yield the package in the arguments of a runner such as npx, without its version."""
    for word in args:
        if not word.startswith("-"):
            scope, at, rest = word.rpartition("@")
            yield scope if at and scope else at + rest
            return
