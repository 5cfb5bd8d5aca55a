"""Actions to steps: every value gets the step that makes it, and `it` gets what it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.references import references_in
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.services.rules import meaning as m
from agent_runtime.services.rules.formulas import expression, is_plain, literal_number
from agent_runtime.services.rules.refusals import refusal
from agent_runtime.services.rules.tools import Toolbox

_TITLE = 120
_BASIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


@dataclass(frozen=True, slots=True)
class Got:
    """Something that there is by now, as the templates of its forms; None where it has no such form.

    `kind`: what it is. `document`: it is what a file holds. `file`: where it is kept, as the template of a path.
    """

    kind: str
    text: str | None = None
    number: JsonValue = None
    file: str | None = None
    files: str | None = None
    many: str | None = None
    todo: str | None = None


def escaped(text: str) -> str:
    """Literal text as a template: what looks like a reference in it is none."""
    return text.replace("${", "$${")


class Binder:
    """The steps so far, and what they have made, newest last."""

    def __init__(self, tools: Sequence[Tool], max_steps: int) -> None:
        self.steps: list[ToolStep] = []
        self._toolbox = Toolbox(tools)
        self._max_steps = max_steps
        self._got: list[Got] = []
        self._file: str | None = None
        self._folder: str | None = None
        self._part = ""
        self._wrote_back = False
        self._last: m.Action | None = None

    def take(self, part: str, action: m.Action) -> None:
        """Add the steps of one instruction. Raises: PlanningError."""
        self._part = part
        match action:
            case m.Show(values):
                for value in values:
                    self._shown(value)
                if len(values) > 1:
                    self._remember(Got("several"))
            case m.Focus(value):
                self._got.append(self._as_number(value))
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
        self._wrote_back = isinstance(action, m.Write) and isinstance(action.content, m.Back)
        self._last = action

    # Steps

    def _step(self, name: str, arguments: JsonObject, title: str) -> str:
        """Add a step and return its id."""
        tool = self._toolbox.find(name, self._part)
        if len(self.steps) >= self._max_steps:
            raise self._declined(
                f"would be step {len(self.steps) + 1}, and this task may take {self._max_steps} (max_steps)"
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
        return refusal(self._part, why)

    def _remember(self, got: Got) -> Got:
        self._got.append(got)
        return got

    # Actions

    def _shown(self, value: m.Value) -> None:
        if isinstance(value, m.Back):
            got = self._back(value)
            if got.kind in {"written", "todo"}:
                self._read_again(got)
        elif (
            isinstance(value, m.Contents)
            and isinstance(value.file, m.FileBack)
            and self._got
            and self._got[-1].kind == "document"
        ):
            return  # it has just been read
        elif isinstance(value, m.Literally):
            raise self._declined("asks for nothing that a tool could do with this text")
        else:
            self._make(value)

    def _read_again(self, got: Got) -> Got:
        if got.file is None:
            raise self._declined("speaks of something that cannot be shown")
        return self._read(got.file)

    def _make_folder(self, folder: m.Folder, inside: m.Folder) -> None:
        base = self._folder_path(inside)
        path = folder.path or "." if base == "." else f"{base}/{folder.path}"
        self._step("create_directory", {"path": escaped(path)}, f"Make the folder {path}")
        self._folder = path

    def _write(self, action: m.Write) -> None:
        content = self._content(action.content)
        for file in action.files:
            path = self._path(file, writing=True)
            name = "append_file" if action.append else "write_file"
            title = f"Append to {path}" if action.append else f"Write {path}"
            self._step(name, {"path": path, "content": content}, title)
            self._file = path
        if not isinstance(action.content, m.Back):
            self._remember(Got("written", text=None, file=self._file))

    def _content(self, value: m.Value) -> str:
        if isinstance(value, m.Literally):
            return escaped(value.text)
        if isinstance(value, m.Contents) and not value.outright and isinstance(value.file, m.NamedFile):
            pass
        got = self._back(value) if isinstance(value, m.Back) else self._make(value)
        if got.text is None and got.kind == "written":
            got = self._read_again(got)
        if got.text is None:
            raise self._declined("speaks of something that is no text to write")
        return got.text

    def _add_to(self, what: m.Value, to: m.Back) -> None:
        """`add 5 to it`: to the number, or to the file."""
        last = self._got[-1] if self._got else None
        if last is None:
            raise self._unresolved(to)
        if last.number is not None and not self._wrote_back:
            self._make(m.Operation("+", (to, what)))
        elif last.kind == "written" and isinstance(what, m.Number):
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
            self._remember(Got("todo", todo=f"${{{step}.output.id}}"))

    def _end_todo(self, tool: str, todo: m.WhichTodo) -> None:
        done = "Complete" if tool == "complete" else "Delete"
        if todo.id is not None:
            self._step(f"todo.{tool}", {"id": todo.id}, f"{done} todo {todo.id}")
        elif todo.text is not None:
            self._step(f"todo.{tool}", {"text": escaped(todo.text)}, f"{done} the todo about {todo.text}")
        else:
            last = self._got[-1] if self._got else None
            if last is None or last.todo is None:
                raise self._declined(
                    "is ambiguous: no todo was spoken of just before; name it by its number or its text"
                )
            self._step(f"todo.{tool}", {"id": last.todo}, f"{done} that todo")

    # Values

    def _make(self, value: m.Value) -> Got:
        """The value, by new steps or by what is there already."""
        match value:
            case m.Back():
                return self._back(value)
            case m.Literally(text):
                return Got("literal", text=escaped(text))
            case m.Contents(file):
                return self._contents(file)
            case m.Summary(of, sentences):
                text = self._text(of)
                more = {} if sentences is None else {"sentences": sentences}
                step = self._step("summarize", {"text": text, **more}, "Summarize the text")
                return self._remember(Got("summary", text=f"${{{step}.text}}"))
            case m.Count(of, measure, known):
                taken = next((got for got in reversed(self._got) if got.kind == measure), None) if known else None
                return taken or self._count(of, measure)
            case m.HowMany(of):
                return self._how_many(of)
            case m.FirstLines(of, lines):
                title = "Take the first line" if lines == 1 else f"Take the first {lines} lines"
                step = self._step("head", {"text": self._text(of), "lines": lines}, title)
                return self._remember(Got("lines", text=f"${{{step}.text}}"))
            case m.LinesWith(of, query):
                step = self._step(
                    "find", {"text": self._text(of), "query": escaped(query)}, f"Find the lines with {query}"
                )
                return self._remember(Got("lines", text=f"${{{step}.text}}", many=f"${{{step}.output.count}}"))
            case m.Info(file):
                path = self._path(file)
                step = self._step("file_info", {"path": path}, f"Look up the details of {path}")
                return self._remember(Got("info", text=f"${{{step}.text}}", file=path))
            case m.Listing() | m.Search() | m.Todos():
                return self._listed(value)
            case m.Number(text):
                return Got("number", text=text, number=literal_number(text))
            case m.Operation() | m.Formula():
                return self._calculate(value)

    def _listed(self, value: m.Listing | m.Search | m.Todos) -> Got:
        if isinstance(value, m.Todos):
            title = "List all todos" if value.status == "all" else f"List the {value.status} todos"
            step = self._step("todo.list", {"status": value.status}, title)
            return self._remember(Got("list", text=f"${{{step}.text}}", many=f"${{{step}.output.count}}"))
        if isinstance(value, m.Search):
            return self._search(value)
        if value.folder is None:
            before = next((got for got in reversed(self._got) if got.files is not None), None)
            if before is not None:
                return before
        path = self._folder_path(value.folder or m.ROOT)
        step = self._step(
            "list_directory", {"path": escaped(path)}, "List the files" if path == "." else f"List {path}"
        )
        self._folder = path
        return self._remember(Got("list", text=f"${{{step}.text}}", files=f"{step}.output.text_files"))

    def _search(self, value: m.Search) -> Got:
        arguments: JsonObject = {"pattern": escaped(value.pattern)}
        path = self._folder_path(value.folder)
        if path != ".":
            arguments["path"] = escaped(path)
        if value.content is not None:
            arguments["content"] = escaped(value.content)
        what = f"Search files for {value.content}" if value.content is not None else f"Find files named {value.pattern}"
        step = self._step("search_files", arguments, what)
        return self._remember(
            Got("list", text=f"${{{step}.text}}", files=f"{step}.output.matches", many=f"${{{step}.output.count}}")
        )

    def _count(self, of: m.Value, measure: m.Measure) -> Got:
        step = self._step("count_words", {"text": self._text(of)}, f"Count the {measure}")
        if measure == "words":
            return self._remember(Got(measure, text=f"${{{step}.text}}", number=f"${{{step}.output.words}}"))
        # The text of that result is the number of words: what was asked for gets a result of its own.
        return self._number_of(f"${{{step}.output.{measure}}}", f"Take the number of {measure}", measure)

    def _how_many(self, of: m.Value) -> Got:
        got = self._make(of)
        if got.many is None:
            if isinstance(of, m.Back) and got.text is not None:
                return self._count(of, "words")
            raise self._declined("asks to count something that cannot be counted here")
        return self._number_of(got.many, "Take their number")

    def _number_of(self, template: str, title: str, kind: str = "number") -> Got:
        step = self._step("evaluate", {"expression": template}, title)
        return self._remember(Got(kind, text=f"${{{step}.text}}", number=f"${{{step}.output.result}}"))

    def _calculate(self, value: m.Operation | m.Formula) -> Got:
        if isinstance(value, m.Formula):
            return self._evaluated(escaped(value.text))
        operands = [self._operand(each) for each in value.operands]
        if value.op in _BASIC and len(operands) == 2 and all(is_plain(each) for each in operands):  # noqa: PLR2004 - two sides
            a, b = operands
            shown = expression(value.op, [_named(each) for each in operands])
            step = self._step(_BASIC[value.op], {"a": a, "b": b}, f"Calculate {shown}")
            return self._remember(Got("number", text=f"${{{step}.text}}", number=f"${{{step}.output.result}}"))
        return self._evaluated(expression(value.op, operands))

    def _evaluated(self, formula: str) -> Got:
        step = self._step("evaluate", {"expression": formula}, f"Calculate {_named(formula)}")
        return self._remember(Got("number", text=f"${{{step}.text}}", number=f"${{{step}.output.result}}"))

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
        if isinstance(value, m.Back):
            return self._numeric(value)
        if isinstance(value, m.Contents):
            got = self._contents(value.file)
            return Got("number", text=got.text, number=f"({got.text})")
        got = self._make(value)
        if got.number is None:
            raise self._declined("asks to calculate with something that is no number")
        return got

    def _numeric(self, back: m.Back) -> Got:
        for got in reversed(self._got):
            if got.number is not None:
                return got
            if back.sort == "any" and got.kind == "document" and got is self._got[-1]:
                return Got("number", text=got.text, number=f"({got.text})")
        raise self._unresolved(back)

    # Texts and files

    def _text(self, of: m.Value) -> str:
        """The text to work on; `it` is rather a document than what was made of one."""
        if isinstance(of, m.Back) and of.sort == "any":
            plural = of.said in {"them", "these", "those"}
            got = (
                None
                if plural
                else next((each for each in reversed(self._got) if each.kind in {"document", "written"}), None)
            )
            got = got or next(
                (each for each in reversed(self._got) if each.text is not None and each.number is None), None
            )
            last = self._got[-1] if self._got else None
            if got is None or last is None or last.kind == "todo" or of.said in {"this", "that", "the result"}:
                got = self._back(of)
        elif isinstance(of, m.Back):
            got = self._back(of)
        elif isinstance(of, m.Contents) and isinstance(of.file, m.FileBack):
            return self._text(m.Back("any", "it"))
        else:
            got = self._make(of)
        if got.kind == "written":
            got = self._read_again(got)
        if got.text is None or got.kind == "todo":
            raise self._declined("speaks of something that is no text to work on")
        return got.text

    def _contents(self, file: m.File) -> Got:
        if isinstance(file, m.FileBack) and self._got and self._got[-1].kind == "document":
            return self._got[-1]
        return self._read(self._path(file))

    def _read(self, path: str) -> Got:
        title = "Read that file" if path.startswith("${") else f"Read {path}"
        step = self._step("read_file", {"path": path}, title)
        self._file = path
        return self._remember(Got("document", text=f"${{{step}.text}}", file=path))

    def _path(self, file: m.File, *, writing: bool = False) -> str:
        """The template of the path of a file."""
        match file:
            case m.NamedFile(path, folder):
                base = self._folder_path(folder)
                whole = path if base == "." else f"{base}/{path}"
                self._file = escaped(whole)
            case m.FileBack(said):
                if self._file is None:
                    raise self._unresolved(m.Back("any", said))
            case m.SomeFile():
                if writing:
                    raise self._declined("does not say into which file: give its name")
                self._file = self._one_of(file)
        return self._file or "."

    def _one_of(self, file: m.SomeFile) -> str:
        before = next((got for got in reversed(self._got) if got.files is not None), None)
        if before is None or file.folder is not None:
            before = self._listed(m.Listing(file.folder or m.ROOT))
        return f"${{{before.files}.{file.index}}}"

    def _folder_path(self, folder: m.Folder) -> str:
        if folder.path is not None:
            return folder.path
        if self._folder is None:
            raise self._unresolved(m.Back("any", folder.said))
        return self._folder

    # What came before

    def _back(self, back: m.Back) -> Got:
        """What this stands for: the newest that fits. Raises: PlanningError where there is none."""
        kinds = {"summary": {"summary"}, "list": {"list"}, "lines": {"lines"}}.get(back.sort)
        if back.sort == "number":
            return self._numeric(back)
        if back.sort == "text":
            found = next((got for got in reversed(self._got) if got.kind in {"document", "written"}), None)
            if found is None and self._file is not None:
                return self._read(self._file)
            if found is not None:
                return self._read_again(found) if found.kind == "written" else found
            raise self._unresolved(back)
        for got in reversed(self._got):
            if kinds is None or got.kind in kinds:
                return self._single(got, back)
        if back.sort == "summary" and any(got.kind == "document" for got in self._got):
            return self._make(m.Summary(m.Back("any", "it")))
        raise self._unresolved(back)

    def _single(self, got: Got, back: m.Back) -> Got:
        if got.kind == "several":
            raise self._declined(f"is ambiguous: {back.said!r} may be any of several things that came before")
        return got

    def _unresolved(self, back: m.Back) -> PlanningError:
        return self._declined(f"speaks of {back.said!r}, and nothing that came before it can be meant")


def _named(template: JsonValue) -> str:
    """A template as it reads in a title."""
    text = str(template)
    for reference in references_in(template):
        text = text.replace(str(reference), "the result")
    return text.replace("(the result)", "the result")
