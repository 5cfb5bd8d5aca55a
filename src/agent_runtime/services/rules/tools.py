"""Which built-in tool does what: found by what it takes, because the operator names the servers."""

from collections.abc import Sequence

from agent_runtime.domain.tools import Tool
from agent_runtime.services.rules.refusals import refusal

ARGUMENTS = {
    "read_file": {"path"},
    "write_file": {"path", "content"},
    "append_file": {"path", "content"},
    "list_directory": {"path"},
    "create_directory": {"path"},
    "search_files": {"pattern", "path", "content"},
    "file_info": {"path"},
    "add": {"a", "b"},
    "subtract": {"a", "b"},
    "multiply": {"a", "b"},
    "divide": {"a", "b"},
    "evaluate": {"expression"},
    "summarize": {"text", "sentences"},
    "count_words": {"text"},
    "find": {"text", "query"},
    "head": {"text", "lines"},
    "todo.add": {"text"},
    "todo.list": {"status"},
    "todo.complete": {"id", "text"},
    "todo.delete": {"id", "text"},
}
"""What each tool must take. Tools of one name on two servers (`add`) are told apart by it."""
_HOME = {"todo.add": "todo", "todo.list": "todo", "todo.complete": "todo", "todo.delete": "todo", "add": "calculator",
         "subtract": "calculator", "multiply": "calculator", "divide": "calculator", "evaluate": "calculator",
         "summarize": "text", "count_words": "text", "find": "text", "head": "text"}  # fmt: skip


class Toolbox:
    """The built-in tools among those of a request."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = [tool for tool in tools if tool.builtin]

    def find(self, name: str, part: str) -> Tool:
        """The tool of this name. Raises: PlanningError where it is missing, or on several servers."""
        plain = name.rpartition(".")[2]
        wanted = ARGUMENTS[name]
        found = [
            tool
            for tool in self._tools
            if tool.name == plain and wanted <= set(tool.definition.inputSchema.get("properties", {}))
        ]
        home = _HOME.get(name, "filesystem")
        if not found:
            raise refusal(
                part,
                f"needs the tool {plain!r} of a built-in {home} server, which is not there: "
                "it is disabled in the tool registry, denied by the operator, or left out of this task's tools",
            )
        named = [tool for tool in found if tool.server == home]
        if len(found) > 1 and not named:
            servers = ", ".join(sorted(tool.server for tool in found))
            raise refusal(part, f"could go to several servers ({servers}): allow only one of them in this task's tools")
        return (named or found)[0]
