"""Finds the paths of files and folders: of a named file, of the one mentioned last, or of the first one found."""

from agent_runtime.domain.references import escape
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.memory import StepResult
from agent_runtime.planners.rules.steps import Steps


class Paths:
    """Finds the paths that instructions refer to. Adds steps where files must be listed or searched first."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._memory = steps.memory

    def find_file(self, file: m.File, *, writing: bool = False) -> str:
        """Return the template of a file's path, and remember the file as the one mentioned last.

        Raises: PlanningError where no file is named or was mentioned.
        """
        memory = self._memory
        match file:
            case m.NamedFile(path, folder):
                base = self.find_folder(folder)
                memory.file = escape(path if base == "." else f"{base}/{path}")
            case m.SomeFile() if writing:
                raise self._steps.make_refusal("does not say into which file: give its name")
            case m.SomeFile():
                memory.file = self._find_one(file)
            case m.FileBack(said) if memory.latest is not None and len(memory.latest.members) > 1:
                raise memory.make_ambiguous_error(said)
            case m.FileBack():
                pass
        if memory.file is None:
            raise memory.make_unresolved_error(file.said if isinstance(file, m.FileBack) else "the file")
        return memory.file

    def _find_one(self, file: m.SomeFile) -> str:
        before = self._memory.find_latest(lambda got: got.kind in {"list", "search"})
        if not self._steps.toolbox.lists_files(self._memory.part):
            return self._find_first_in_text(before, file)
        if before is None or before.files is None or file.folder is not None:
            before = self.list_files(file.folder or m.ROOT)
        if file.index is None and before.longest is not None:
            return f"${{{before.longest}}}"
        return f"${{{before.files}.{file.index or 0}}}"

    def _find_first_in_text(self, before: StepResult | None, file: m.SomeFile) -> str:
        """Return the path of the first file, from a server that lists its files only as text."""
        if file.index:
            why = "and this file server lists them only as text: name the file"
            raise self._steps.make_refusal(f"asks for one file of many ({file.said!r}), {why}")
        if before is None or before.lists is not None or file.folder is not None:
            folder = before.lists if before and before.lists and file.folder is None else None
            before = self.search(m.Search("*.txt", m.Folder(folder, folder) if folder else file.folder or m.ROOT))
        step = self._steps.add("head", {"text": before.text, "lines": 1}, "Take the first of them")
        return f"${{{step}.text}}"

    def find_folder(self, folder: m.Folder) -> str:
        """Return the path of a folder. Raises: PlanningError where none was mentioned."""
        if folder.path is not None:
            return folder.path
        if self._memory.folder is None:
            raise self._memory.make_unresolved_error(folder.said)
        return self._memory.folder

    def list_files(self, folder: m.Folder | None) -> StepResult:
        """List a folder; with None, the folder listed last, else the root."""
        before = self._memory.find_latest(lambda got: got.lists is not None)
        if folder is None and before is not None:
            return before
        path = self.find_folder(folder or m.ROOT)
        self._memory.folder = path
        title = "List the files" if path == "." else f"List {path}"
        arguments: JsonObject = {"path": escape(path)}
        return self._steps.make(
            "list", "list_directory", arguments, title, files="text_files", longest="longest_text", lists=path
        )

    def read_all(self, folder: m.Folder) -> StepResult:
        """Read all text files in a folder as one text."""
        path = self.find_folder(folder)
        self._memory.folder = path
        title = "Read all text files" + ("" if path == "." else f" in {path}")
        step = self._steps.add("read_files", {"path": escape(path)}, title)
        return self._memory.remember(StepResult("document", text=f"${{{step}.output.text}}"))

    def search(self, value: m.Search) -> StepResult:
        """Search for files by name or by content."""
        path = self.find_folder(value.folder)
        if value.content is None:
            role, title = "search_files", f"Find files named {value.pattern}"
        else:
            role, title = "contents.search_files", f"Find files with {value.content}"
        builtin = self._steps.toolbox.find(role, self._memory.part).builtin
        # The built-in search covers all folders below the root; other servers match the whole path.
        pattern = value.pattern if builtin or "/" in value.pattern else f"**/{value.pattern}"
        arguments: JsonObject = {"pattern": escape(pattern)}
        if path != "." or not builtin:
            arguments["path"] = escape(path)
        if value.content is not None:
            arguments["content"] = escape(value.content)
        kind = "search" if value.content is None and not set("*?[") & set(value.pattern) else "list"
        return self._steps.make(kind, role, arguments, title, many="count", files="matches")
