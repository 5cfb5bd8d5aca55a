"""The sentences about calls of built-in tools. A test compares them with the tools that there are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent_runtime.domain.present_files import FILE_SERVER, FileState
from agent_runtime.domain.values import JsonObject
from agent_runtime.domain.wording import Wording, count_things


@dataclass(frozen=True, slots=True)
class BuiltinCall:
    """The parts of the sentence about one call.

    `files`: the present states of the files that arguments name, by the argument, as far as they are known. `changes`:
    what an earlier step does with such a file, as in `step 1 writes`; its present state does not count then.
    """

    words: Wording
    arguments: JsonObject
    files: Mapping[str, FileState] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)

    def say(self, name: str) -> str:
        """Return an argument in words."""
        return self.words.describe_value(self.arguments.get(name))

    def name(self, name: str = "path") -> str:
        """Return the path in an argument in words."""
        return self.words.describe_path(self.arguments.get(name, "."))

    def describe(self, name: str = "path", *, lines: bool = False) -> str:
        """Return the path in an argument with what is known of its file, as in `a.txt (876 bytes)`."""
        state = self.files.get(name)
        if name in self.changes:
            return f"{self.name(name)}, which {self.changes[name]}"
        match state:
            case FileState(kind="file", size=size):
                counted = f"{count_things(state.lines, 'line')}, " if lines and state.lines is not None else ""
                return f"{self.name(name)} ({counted}{count_things(size, 'byte')})"
            case FileState(kind="folder"):
                return f"{self.name(name)}, which is a folder now"
            case FileState(kind="other"):
                return f"{self.name(name)}, which is not an ordinary file now"
            case FileState(kind="missing"):
                return f"{self.name(name)}, which does not exist now"
            case _:
                return self.name(name)

    def describe_target(self, name: str) -> str:
        """Return the path in an argument with what there is already, where something is to be written."""
        match self.files.get(name):
            case FileState(kind="missing"):
                return self.name(name)
            case FileState(kind="file", size=size):
                return f"{self.name(name)}, which exists ({count_things(size, 'byte')})"
            case _:
                return self.describe(name)

    @property
    def folder(self) -> str:
        return "the root folder" if self.arguments.get("path", ".") == "." else f"the folder {self.name()}"

    def count(self, name: str, default: int, noun: str) -> str:
        """Return an argument that is a number of things, as in `10 lines`."""
        count = self.arguments.get(name, default)
        return count_things(count, noun) if isinstance(count, int) else f"{self.say(name)} {noun}s"


def _write_file(call: BuiltinCall) -> str:
    state = call.files.get("path")
    if state is not None and state.kind == "missing":
        return f"Creates {call.name()} with {call.say('content')}"
    if state is None and "path" not in call.changes:
        return f"Writes {call.say('content')} to {call.name()}, in place of anything that is there"
    return f"Replaces {_close(call.describe_target('path'))} with {call.say('content')}"


def _append_file(call: BuiltinCall) -> str:
    state = call.files.get("path")
    if state is not None and state.kind == "missing":
        return f"Creates {call.name()} with {call.say('content')}"
    return f"Adds {call.say('content')} to the end of {call.describe_target('path')}"


def _close(described: str) -> str:
    """Return a described file with the comma that ends its relative clause, if it has one."""
    return f"{described}," if ", which " in described else described


def _copy_or_move(verb: str) -> Callable[[BuiltinCall], str]:
    def describe(call: BuiltinCall) -> str:
        return f"{verb} {_close(call.describe('source'))} to {call.describe_target('destination')}"

    return describe


def _create_directory(call: BuiltinCall) -> str:
    state = call.files.get("path")
    return (
        f"Creates {call.folder}{', which exists already: nothing changes' if state and state.kind == 'folder' else ''}"
    )


def _search_files(call: BuiltinCall) -> str:
    holding = f" that hold {call.say('content')}" if call.arguments.get("content") is not None else ""
    return f"Looks for files that match {call.say('pattern')}{holding} in {call.folder} and below"


def _name_todo(call: BuiltinCall) -> str:
    named = call.arguments.get("id") is not None
    return f"todo {call.say('id')}" if named else f"the todo {call.say('text')}"


def _name_todos(call: BuiltinCall) -> str:
    status = call.arguments.get("status", "open")
    return {"all": "all todos", "open": "the open todos", "done": "the todos that are done"}.get(
        status if isinstance(status, str) else "", f"the todos of status {call.say('status')}"
    )


SENTENCES: Mapping[tuple[str, str], Callable[[BuiltinCall], str]] = {
    (FILE_SERVER, "read_file"): lambda call: f"Reads {call.describe(lines=True)}",
    (FILE_SERVER, "read_files"): lambda call: f"Reads all text files in {call.folder}",
    (FILE_SERVER, "write_file"): _write_file,
    (FILE_SERVER, "append_file"): _append_file,
    (FILE_SERVER, "copy_file"): _copy_or_move("Copies"),
    (FILE_SERVER, "move_file"): _copy_or_move("Moves"),
    (FILE_SERVER, "delete_file"): lambda call: f"Deletes {_close(call.describe())} for good",
    (FILE_SERVER, "list_directory"): lambda call: f"Lists what is in {call.folder}",
    (FILE_SERVER, "create_directory"): _create_directory,
    (FILE_SERVER, "search_files"): _search_files,
    (FILE_SERVER, "file_info"): lambda call: f"Looks up the type, size and date of {call.describe()}",
    ("calculator", "add"): lambda call: f"Adds {call.say('a')} and {call.say('b')}",
    ("calculator", "subtract"): lambda call: f"Subtracts {call.say('b')} from {call.say('a')}",
    ("calculator", "multiply"): lambda call: f"Multiplies {call.say('a')} by {call.say('b')}",
    ("calculator", "divide"): lambda call: f"Divides {call.say('a')} by {call.say('b')}",
    ("calculator", "evaluate"): lambda call: f"Calculates {call.say('expression')}",
    ("text", "summarize"): lambda call: (
        f"Summarizes {call.say('text')} in at most {call.count('sentences', 3, 'sentence')}"
    ),
    ("text", "count_words"): lambda call: f"Counts the words, characters and lines of {call.say('text')}",
    ("text", "find"): lambda call: f"Looks for {call.say('query')} in {call.say('text')}",
    ("text", "head"): lambda call: f"Takes the first {call.count('lines', 10, 'line')} of {call.say('text')}",
    ("text", "tail"): lambda call: f"Takes the last {call.count('lines', 10, 'line')} of {call.say('text')}",
    ("text", "today"): lambda _: "Gives today's date",
    ("todo", "add"): lambda call: f"Adds the todo {call.say('text')}",
    ("todo", "list"): lambda call: f"Lists {_name_todos(call)}",
    ("todo", "complete"): lambda call: f"Marks {_name_todo(call)} as done",
    ("todo", "complete_all"): lambda _: "Marks all open todos as done",
    ("todo", "delete"): lambda call: f"Deletes {_name_todo(call)} for good",
    ("todo", "delete_all"): lambda call: f"Deletes {_name_todos(call)} for good",
}
"""The words for built-in tools, by the name of the built-in server and of the tool."""
