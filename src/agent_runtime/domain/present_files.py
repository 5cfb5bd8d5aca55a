"""The files that a plan names, as they are at the moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent_runtime.domain.contract import Contract
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.references import join_literal, parse_template
from agent_runtime.domain.values import JsonObject, JsonValue

FILE_SERVER = "filesystem"
"""The name of the built-in file server."""

_PATHS = ("path", "source", "destination")

NamedFile = tuple[str, str]
"""The id of a file server and a path, as the plan has it."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The thing that a path names now. `missing`: there is none. `size`: in bytes. `lines`: None if not counted."""

    kind: Literal["file", "folder", "other", "missing"]
    size: int = 0
    lines: int | None = None


PresentFiles = Mapping[NamedFile, FileState]


def builtin_names(identities: Mapping[str, JsonObject]) -> dict[str, str]:
    """Return the names of the built-in servers among the plan's servers, by id, as their identities state them."""
    return {server: str(facts.get("server")) for server, facts in identities.items() if facts.get("type") == "builtin"}


def find_files(step: ToolStep | AgentStep, builtin: Mapping[str, str]) -> dict[str, NamedFile]:
    """Return the files that a step names on a built-in file server, by the argument. Paths that are known only when the
    step runs are left out.
    """
    if isinstance(step, AgentStep) or builtin.get(step.server) != FILE_SERVER:
        return {}
    paths = {name: _literal_text(step.arguments.get(name)) for name in _PATHS}
    return {name: (step.server, path) for name, path in paths.items() if path is not None}


def _literal_text(value: JsonValue) -> str | None:
    """Return a text of the plan as it will be sent; None if it contains references, or is no text."""
    if not isinstance(value, str):
        return None
    try:
        return join_literal(parse_template(value))
    except ValueError:
        return None


def find_all_files(contract: Contract, identities: Mapping[str, JsonObject]) -> list[NamedFile]:
    """Return the files that the steps of a plan name on built-in file servers, each once."""
    builtin = builtin_names(identities)
    return list(dict.fromkeys(named for step in contract.steps for named in find_files(step, builtin).values()))
