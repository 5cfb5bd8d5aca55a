"""Chooses tools by role. A role is something that a plan needs done; a tool can play it by its name and its schemas.

Built-in servers are preferred. If none of them plays a role, the first server that does is taken, in the order of the
registry.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.rules.refusals import make_missing_tool_error, make_refusal


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tool that can play a role: its name, the arguments that it gets, and the fields that its output must have."""

    tool: str
    arguments: frozenset[str]
    output: frozenset[str] = frozenset()

    def fits(self, tool: Tool) -> bool:
        """Return whether this tool accepts the arguments, requires no others, and promises the output."""
        schema = tool.definition.arguments_schema
        return (
            tool.name == self.tool
            and self.arguments <= list_properties(schema)
            and _list_required(schema) <= self.arguments
            and self.output <= list_properties(tool.definition.outputSchema)
        )


@dataclass(frozen=True, slots=True)
class Role:
    """Something that a plan needs done. `home` is the built-in server that does it; None if none does."""

    home: str | None
    candidates: tuple[Candidate, ...]


def _make_role(home: str | None, *tools: str, output: str = "") -> Role:
    """Build a role from lines such as `read_file path`: the tool's name, then its arguments."""
    lines = (line.split() for line in tools)
    return Role(home, tuple(Candidate(name, frozenset(given), frozenset(output.split())) for name, *given in lines))


ROLES = {
    "read_file": _make_role("filesystem", "read_text_file path", "read_file path"),
    "write_file": _make_role("filesystem", "write_file path content"),
    "copy_file": _make_role("filesystem", "copy_file source destination"),
    "move_file": _make_role("filesystem", "move_file source destination"),
    "delete_file": _make_role("filesystem", "delete_file path"),
    "read_files": _make_role("filesystem", "read_files path", output="text"),
    "append_file": _make_role("filesystem", "append_file path content"),
    "list_directory": _make_role("filesystem", "list_directory path"),
    "create_directory": _make_role("filesystem", "create_directory path"),
    "search_files": _make_role("filesystem", "search_files pattern path"),
    "contents.search_files": _make_role("filesystem", "search_files pattern path content"),
    "file_info": _make_role("filesystem", "file_info path", "get_file_info path"),
    "add": _make_role("calculator", "add a b", output="result"),
    "subtract": _make_role("calculator", "subtract a b", output="result"),
    "multiply": _make_role("calculator", "multiply a b", output="result"),
    "divide": _make_role("calculator", "divide a b", output="result"),
    "evaluate": _make_role("calculator", "evaluate expression", output="result"),
    "summarize": _make_role("text", "summarize text sentences"),
    "count_words": _make_role("text", "count_words text", output="words characters lines"),
    "find": _make_role("text", "find text query"),
    "head": _make_role("text", "head text lines"),
    "tail": _make_role("text", "tail text lines"),
    "today": _make_role("text", "today"),
    "todo.add": _make_role("todo", "add text", output="id"),
    "todo.list": _make_role("todo", "list status"),
    "todo.complete": _make_role("todo", "complete id text"),
    "todo.delete": _make_role("todo", "delete id text"),
    "todo.complete_all": _make_role("todo", "complete_all"),
    "todo.delete_all": _make_role("todo", "delete_all status"),
    "fetch": _make_role(None, "imageFetch url", "fetch url", "fetch_url url"),
}
"""All roles by name. A name ends with that of a tool; where two servers have tools of one name (`add`), their arguments
differ.
"""


class Toolbox:
    """The tools of a request, by the roles that they play."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._by_server: dict[str, list[Tool]] = {}
        for tool in sorted(tools, key=lambda tool: not tool.builtin):
            self._by_server.setdefault(tool.server, []).append(tool)

    def lists_files(self, part: str) -> bool:
        """Return whether the server that lists a folder returns the names one by one, not only as text."""
        tool = self.find("list_directory", part)
        return "text_files" in list_properties(tool.definition.outputSchema)

    def has(self, name: str) -> bool:
        """Return whether a tool plays this role."""
        return any(True for _ in self._find_players(ROLES[name]))

    def find(self, name: str, part: str) -> Tool:
        """Return the tool for this role.

        Raises: MissingToolError where there is none, PlanningError where several built-in servers could be meant.
        """
        role = ROLES[name]
        found = list(self._find_players(role))
        if not found:
            raise make_missing_tool_error(part, name.rpartition(".")[2], role.home)
        builtin = [tool for tool in found if tool.builtin]
        named = [tool for tool in builtin if tool.server == role.home]
        if len({tool.server for tool in builtin}) > 1 and not named:
            servers = ", ".join(sorted({tool.server for tool in builtin}))
            raise make_refusal(
                part, f"could go to several servers ({servers}): allow only one of them in this task's tools"
            )
        return (named or found)[0]

    def _find_players(self, role: Role) -> Iterator[Tool]:
        """Yield the tools for a role: built-in servers first, then by server, the best candidate of each first."""
        for own in self._by_server.values():
            yield from (tool for candidate in role.candidates for tool in own if candidate.fits(tool))


def list_properties(schema: JsonObject | None) -> AbstractSet[str]:
    """Return the names of the properties that a schema describes."""
    properties = (schema or {}).get("properties")
    return properties.keys() if isinstance(properties, dict) else frozenset()


def _list_required(schema: JsonObject) -> frozenset[str]:
    required = schema.get("required")
    return frozenset(name for name in required if isinstance(name, str)) if isinstance(required, list) else frozenset()
