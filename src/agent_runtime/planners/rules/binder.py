"""Actions to steps: every value gets the step that makes it, and `it` gets what it stands for."""

from collections.abc import Sequence
from dataclasses import replace

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.formulas import expression, is_plain, literal_number, shown
from agent_runtime.planners.rules.memory import Got, Memory
from agent_runtime.planners.rules.refusals import refusal
from agent_runtime.planners.rules.tools import Toolbox, property_names

_TITLE = 120
_BASIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_RESULTS = {"+": "sum", "-": "difference", "*": "product", "/": "quotient"}


_SIDES = 2


def escaped(text: str) -> str:
    """Literal text as a template: what looks like a reference in it is none."""
    return text.replace("${", "$${")


class Binder:
    """The steps so far, and the memory of what they make."""

    def __init__(self, tools: Sequence[Tool], max_steps: int) -> None:
        self.steps: list[ToolStep] = []
        self._toolbox = Toolbox(tools)
        self._max_steps = max_steps
        self._memory = Memory()
        self._last: m.Action | None = None

    def take(self, part: str, action: m.Action) -> None:
        """Add the steps of one instruction. Raises: PlanningError."""
        self._memory.part = part
        match action:
            case m.Show(values):
                self._show(values)
            case m.Focus(value):
                self._memory.remember(self._as_number(value))
            case m.Write():
                self._write(action)
            case m.AddTo(what, to):
                self._add_to(what, to)
            case m.MakeFolders(folders, inside):
                for folder in folders:
                    self._make_folder(folder, inside)
            case m.AddTodos():
                self._add_todos(action)
            case m.EndTodos(tool, todos):
                for todo in todos:
                    self._end_todo(tool, todo)
            case m.Nothing():
                pass
        self._last = action

    def _step(self, name: str, arguments: JsonObject, title: str) -> str:
        """Add a step after all others and return its id."""
        tool = self._toolbox.find(name, self._memory.part)
        if len(self.steps) >= self._max_steps:
            raise self._declined(
                f"would be step {len(self.steps) + 1}, over the limit of {self._max_steps} (max_steps)"
            )
        before = self.steps[-1].id if self.steps else None
        implied = {reference.step for reference in references_in(arguments)}
        self.steps.append(
            ToolStep(
                kind="tool",
                id=f"s{len(self.steps) + 1}",
                title=title if len(title) <= _TITLE else title[: _TITLE - 4] + " ...",
                server=tool.server,
                tool=tool.name,
                arguments=arguments,
                depends_on=(before,) if before and before not in implied else (),
            )
        )
        return self.steps[-1].id

    def _declined(self, why: str) -> PlanningError:
        return refusal(self._memory.part, why)

    # Actions

    def _show(self, values: Sequence[m.Value]) -> None:
        had = [got for value in values if (got := self._shown(value))]
        if len(had) > 1:
            self._memory.remember(Got("several", members=tuple(had)))

    def _shown(self, value: m.Value) -> Got | None:
        latest = self._memory.latest
        if isinstance(value, m.Back):
            got = self._memory.thing(value) if value.sort != "number" else self._memory.number(value)
            if got.kind == "todo":
                return self._make(m.Todos("open"))
            return self._read_again(got) if got.kind == "written" else got
        if (
            isinstance(value, m.Contents)
            and isinstance(value.file, m.FileBack)
            and latest
            and latest.kind == "document"
        ):
            return latest  # it has just been read
        if isinstance(value, m.Literally):
            raise self._declined("asks for nothing that a tool could do with this text")
        if isinstance(value, m.Summary | m.Count) and _speaks_of_several(value.of) and latest and latest.members:
            return self._for_each(value, latest.members)
        return self._make(value)

    def _for_each(self, value: m.Summary | m.Count, members: Sequence[Got]) -> Got | None:
        """`summarize them`: the same for each."""
        had = []
        for member in members:
            self._memory.remember(member)
            had.append(self._make(replace(value, of=m.Back("any", "that"))))
        self._memory.remember(Got("several", members=tuple(had)))
        return None

    def _read_again(self, got: Got) -> Got:
        if got.file is None:
            raise self._declined("speaks of something that cannot be shown")
        return self._read(got.file)

    def _make_folder(self, folder: m.Folder, inside: m.Folder) -> None:
        base = self._folder_path(inside)
        path = (folder.path or ".") if base == "." else f"{base}/{folder.path}"
        self._step("create_directory", {"path": escaped(path)}, f"Make the folder {path}")
        self._memory.folder = path

    def _write(self, action: m.Write) -> None:
        content = self._content(action.content)
        for file in action.files:
            path = self._path(file, writing=True)
            name, title = ("append_file", "Append to") if action.append else ("write_file", "Write")
            title = title if content else "Create"
            self._step(name, {"path": path, "content": content}, f"{title} {path}")
        if not isinstance(action.content, m.Back):
            self._memory.remember(Got("written", file=self._memory.file))

    def _content(self, value: m.Value) -> str:
        if isinstance(value, m.Literally):
            return escaped(value.text)
        got = self._back(value) if isinstance(value, m.Back) else self._make(value)
        if got.kind == "written":
            got = self._read_again(got)
        if got.text is None:
            raise self._declined("speaks of something that is no text to write")
        return got.text

    def _add_to(self, what: m.Value, to: m.Back) -> None:
        """`add 5 to it`: to the number, or to the file."""
        latest = self._memory.latest
        if latest is None:
            raise self._memory.unresolved(to.said)
        just_saved = isinstance(self._last, m.Write) and isinstance(self._last.content, m.Back)
        if latest.number is not None and not just_saved:
            self._make(m.Operation("+", (to, what)))
        elif latest.kind == "written" and isinstance(what, m.Number):
            self._write(m.Write(m.Literally(what.text), (m.FileBack(to.said),), append=True))
        else:
            raise self._declined(f"is ambiguous: {to.said!r} may be the number or the file")

    def _add_todos(self, action: m.AddTodos) -> None:
        if action.another and not isinstance(self._last, m.AddTodos):
            raise self._declined("says 'another', and nothing like it came before")
        for text in action.texts:
            line = " ".join(text.split())
            if not line:
                raise self._declined("names an empty todo")
            step = self._step("todo.add", {"text": escaped(text)}, f"Add the todo {line}")
            self._memory.remember(Got("todo", todo=f"${{{step}.output.id}}"))

    def _end_todo(self, tool: str, todo: m.WhichTodo) -> None:
        done = "Complete" if tool == "complete" else "Delete"
        latest = self._memory.latest
        if todo.id is not None:
            self._step(f"todo.{tool}", {"id": todo.id}, f"{done} todo {todo.id}")
        elif todo.text is not None:
            self._step(f"todo.{tool}", {"text": escaped(todo.text)}, f"{done} the todo about {todo.text}")
        elif latest is None or latest.todo is None:
            raise self._declined("is ambiguous: no todo was spoken of just before; name it by its number or its text")
        else:
            self._step(f"todo.{tool}", {"id": latest.todo}, f"{done} that todo")

    # Values

    def _make(self, value: m.Value) -> Got:
        """The value, by new steps or by what there is already."""
        match value:
            case m.Back():
                return self._back(value)
            case m.Literally(text):
                return Got("literal", text=escaped(text))
            case m.Contents(file):
                return self._contents(file)
            case m.Page(url):
                return self._got("document", "fetch", {"url": escaped(url)}, f"Fetch {url}")
            case m.Summary(of, sentences):
                more = {} if sentences is None else {"sentences": sentences}
                return self._got("summary", "summarize", {"text": self._text(of), **more}, "Summarize the text")
            case m.Count(of, measure, known):
                taken = self._memory.latest_where(lambda got: got.kind == measure) if known else None
                return taken or self._count(of, measure)
            case m.HowMany(of):
                return self._how_many(of)
            case m.FirstLines(of, lines):
                title = "Take the first line" if lines == 1 else f"Take the first {lines} lines"
                return self._got("found", "head", {"text": self._text(of), "lines": lines}, title)
            case m.LinesWith(of, query):
                arguments = {"text": self._text(of), "query": escaped(query)}
                return self._got("found", "find", arguments, f"Find the lines with {query}", many="count")
            case m.Info(file):
                path = self._path(file)
                return self._got("info", "file_info", {"path": path}, f"Look up the details of {path}")
            case m.Todos(status):
                title = "List all todos" if status == "all" else f"List the {status} todos"
                return self._got("list", "todo.list", {"status": status}, title, many="count")
            case m.Listing(folder):
                return self._list(folder)
            case m.Search():
                return self._search(value)
            case m.Number(text):
                return Got("number", text=text, number=literal_number(text))
            case m.Operation() | m.Formula():
                return self._calculate(value)

    def _got(
        self,
        kind: str,
        role: str,
        arguments: JsonObject,
        title: str,
        *,
        number: str = "",
        many: str = "",
        files: str = "",
        lists: str | None = None,
    ) -> Got:
        """Add a step and remember what it makes.

        `number`, `many`, `files`: where these are in its output; the last two only where the tool's output has them.
        """
        step = self._step(role, arguments, title)
        output = property_names(self._toolbox.find(role, self._memory.part).definition.outputSchema)
        return self._memory.remember(
            Got(
                kind,
                text=f"${{{step}.text}}",
                number=f"${{{step}.output.{number}}}" if number else None,
                many=f"${{{step}.output.{many}}}" if many in output else None,
                files=f"{step}.output.{files}" if files in output else None,
                lists=lists,
            )
        )

    def _list(self, folder: m.Folder | None) -> Got:
        before = self._memory.latest_where(lambda got: got.lists is not None)
        if folder is None and before is not None:
            return before
        path = self._folder_path(folder or m.ROOT)
        self._memory.folder = path
        title = "List the files" if path == "." else f"List {path}"
        arguments: JsonObject = {"path": escaped(path)}
        return self._got("list", "list_directory", arguments, title, files="text_files", lists=path)

    def _search(self, value: m.Search) -> Got:
        path = self._folder_path(value.folder)
        if value.content is None:
            role, title = "search_files", f"Find files named {value.pattern}"
        else:
            role, title = "contents.search_files", f"Find files with {value.content}"
        builtin = self._toolbox.find(role, self._memory.part).builtin
        # The built-in search looks into all folders and begins at the root; others take the pattern of a whole path.
        pattern = value.pattern if builtin or "/" in value.pattern else f"**/{value.pattern}"
        arguments: JsonObject = {"pattern": escaped(pattern)}
        if path != "." or not builtin:
            arguments["path"] = escaped(path)
        if value.content is not None:
            arguments["content"] = escaped(value.content)
        return self._got("list", role, arguments, title, many="count", files="matches")

    def _count(self, of: m.Value, measure: m.Measure) -> Got:
        arguments = {"text": self._text(of)}
        if measure == "words":
            return self._got("words", "count_words", arguments, "Count the words", number="words")
        # The text of that result is the number of words: what was asked for gets a result of its own.
        step = self._step("count_words", arguments, f"Count the {measure}")
        return self._evaluated(f"${{{step}.output.{measure}}}", measure, f"Take the number of {measure}")

    def _how_many(self, of: m.Value) -> Got:
        got = self._make(of)
        if got.many is not None:
            return self._evaluated(got.many, "count", "Take their number")
        raise self._declined("asks to count something that cannot be counted here")

    def _calculate(self, value: m.Operation | m.Formula) -> Got:
        if isinstance(value, m.Formula):
            return self._evaluated(escaped(value.text))
        operands = [self._operand(each) for each in value.operands]
        formula = expression(value.op, operands)
        kind = _RESULTS.get(value.op, "number")
        if value.op in _BASIC and len(operands) == _SIDES and all(is_plain(each) for each in operands):
            a, b = operands
            return self._got(kind, _BASIC[value.op], {"a": a, "b": b}, f"Calculate {shown(formula)}", number="result")
        is_average = value.op == "/" and isinstance(value.operands[0], m.Operation) and value.operands[0].op == "+"
        return self._evaluated(formula, "average" if is_average else kind)

    def _evaluated(self, formula: str, kind: str = "number", title: str = "") -> Got:
        title = title or f"Calculate {shown(formula)}"
        if is_plain(formula):
            formula = f"({formula})"  # a whole reference would keep its type, and an expression is text
        return self._got(kind, "evaluate", {"expression": formula}, title, number="result")

    def _operand(self, value: m.Value) -> JsonValue:
        """A number, a whole reference to one, or the text of an expression in brackets."""
        if isinstance(value, m.Number):
            return literal_number(value.text)
        if isinstance(value, m.Formula):
            return f"({escaped(value.text)})"
        if isinstance(value, m.Operation):
            return f"({expression(value.op, [self._operand(each) for each in value.operands])})"
        return self._as_number(value).number

    def _as_number(self, value: m.Value) -> Got:
        got = self._memory.number(value) if isinstance(value, m.Back) else self._make(value)
        if got.kind == "document":
            return Got("number", text=got.text, number=f"({got.text})")
        if got.number is None:
            raise self._declined("asks to calculate with something that is no number")
        return got

    # Texts, files and what came before

    def _text(self, of: m.Value) -> str:
        """The text to work on."""
        if isinstance(of, m.Contents) and isinstance(of.file, m.FileBack):
            of = m.Back("any", "it")
        got = self._memory.text(of) if isinstance(of, m.Back) and of.sort not in {"text", "summary"} else self._make(of)
        if got.kind == "written":
            got = self._read_again(got)
        if got.text is None:
            raise self._declined("speaks of something that is no text to work on")
        return got.text

    def _back(self, back: m.Back) -> Got:
        memory = self._memory
        if back.sort == "number":
            return memory.number(back)
        if back.sort == "summary" and memory.latest_where(lambda got: got.kind == "summary") is None:
            return self._make(m.Summary(m.Back("any", "it")))
        if back.sort == "text":
            if memory.latest_where(lambda got: got.kind in {"document", "written"}) is None and memory.file:
                return self._read(memory.file)
            got = memory.thing(back)
            return self._read_again(got) if got.kind == "written" else got
        return memory.thing(back)

    def _contents(self, file: m.File) -> Got:
        latest = self._memory.latest
        if isinstance(file, m.FileBack) and latest is not None and latest.kind == "document":
            return latest
        return self._read(self._path(file))

    def _read(self, path: str) -> Got:
        title = "Read that file" if path.startswith("${") else f"Read {path}"
        step = self._step("read_file", {"path": path}, title)
        self._memory.file = path
        return self._memory.remember(Got("document", text=f"${{{step}.text}}", file=path))

    def _path(self, file: m.File, *, writing: bool = False) -> str:
        """The template of the path of a file, which is from now on the one that was spoken of."""
        memory = self._memory
        match file:
            case m.NamedFile(path, folder):
                base = self._folder_path(folder)
                memory.file = escaped(path if base == "." else f"{base}/{path}")
            case m.SomeFile() if writing:
                raise self._declined("does not say into which file: give its name")
            case m.SomeFile():
                memory.file = self._one_of(file)
            case m.FileBack():
                pass
        if memory.file is None:
            raise memory.unresolved(file.said if isinstance(file, m.FileBack) else "the file")
        return memory.file

    def _one_of(self, file: m.SomeFile) -> str:
        before = self._memory.latest_where(lambda got: got.kind == "list")
        if not self._toolbox.lists_files(self._memory.part):
            return self._first_of_text(before, file)
        if before is None or before.files is None or file.folder is not None:
            before = self._list(file.folder or m.ROOT)
        return f"${{{before.files}.{file.index}}}"

    def _first_of_text(self, before: Got | None, file: m.SomeFile) -> str:
        """Return the path of the first file, from a server that lists its files only as text."""
        if file.index:
            why = "and this file server lists them only as text: name the file"
            raise self._declined(f"asks for one file of many ({file.said!r}), {why}")
        if before is None or before.lists is not None or file.folder is not None:
            folder = before.lists if before and before.lists and file.folder is None else None
            before = self._search(m.Search("*.txt", m.Folder(folder, folder) if folder else file.folder or m.ROOT))
        step = self._step("head", {"text": before.text, "lines": 1}, "Take the first of them")
        return f"${{{step}.text}}"

    def _folder_path(self, folder: m.Folder) -> str:
        if folder.path is not None:
            return folder.path
        if self._memory.folder is None:
            raise self._memory.unresolved(folder.said)
        return self._memory.folder


def _speaks_of_several(value: m.Value) -> bool:
    return isinstance(value, m.Back) and value.said in {"them", "these", "those"}
