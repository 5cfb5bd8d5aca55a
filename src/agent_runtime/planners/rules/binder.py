"""Turns actions into steps: each value gets the step that makes it, and `it` is replaced by what it refers to."""

from collections.abc import Sequence
from dataclasses import replace

from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.references import escape
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonValue
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.formulas import build_expression, is_plain, show_expression, to_number
from agent_runtime.planners.rules.memory import StepResult
from agent_runtime.planners.rules.paths import Paths
from agent_runtime.planners.rules.revising import Wish, WishError, apply_wish
from agent_runtime.planners.rules.steps import Steps

_BASIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_RESULTS = {"+": "sum", "-": "difference", "*": "product", "/": "quotient"}
_SIDES = 2


class Binder:
    """Makes the steps of the instructions, one instruction after the other."""

    def __init__(self, tools: Sequence[Tool], max_steps: int) -> None:
        self._steps = Steps(tools, max_steps)
        self._paths = Paths(self._steps)
        self._memory = self._steps.memory
        self._last: m.Action | None = None

    @property
    def steps(self) -> tuple[ToolStep | AgentStep, ...]:
        return self._steps.all

    def take_over(self, steps: tuple[ToolStep | AgentStep, ...]) -> None:
        """Continue with these steps instead of those so far. What is remembered stays."""
        self._steps.all = steps

    def change(self, part: str, wish: Wish) -> None:
        """Change the steps so far. Raises: PlanningError."""
        self._memory.part = part
        try:
            self._steps.all, (old, new) = apply_wish(self._steps.all, wish)
        except WishError as error:
            raise self._steps.make_refusal(str(error)) from None
        self._memory.exchange_file(old, new)

    def take(self, part: str, action: m.Action) -> None:
        """Add the steps of one instruction. Raises: PlanningError."""
        self._memory.part = part
        before = self._steps.all
        match action:
            case m.Show(values):
                self._show(values)
            case m.Focus(value):
                self._memory.remember(self._to_number(value))
            case m.Write():
                self._write(action)
            case m.Join(files, to):
                for file in files:
                    self._write(m.Write(m.Contents(file), (to,), append=file != files[0]))
            case m.Transfer(_, files):
                for file in files:
                    self._transfer(action, file)
            case m.DeleteFiles(files):
                for file in files:
                    path = self._paths.find_file(file)
                    self._steps.add("delete_file", {"path": path}, f"Delete {path}")
                    self._memory.forget_file(path)
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
            case m.If() | m.IfExists():
                self._steps.condition = self._make_condition(action)
            case m.Nothing():
                pass
        if (
            self._steps.condition
            and self._steps.all == before
            and not isinstance(action, m.IfExists | m.If | m.Nothing)
        ):
            raise self._steps.make_refusal("asks for nothing that the condition could cover")
        self._last = action

    # Actions

    def _show(self, values: Sequence[m.Value]) -> None:
        had = [got for value in values if (got := self._show_one(value))]
        if len(had) > 1:
            self._memory.remember(StepResult("several", members=tuple(had)))

    def _show_one(self, value: m.Value) -> StepResult | None:
        latest = self._memory.latest
        if isinstance(value, m.Back):
            got = self._memory.thing(value) if value.sort != "number" else self._memory.number(value)
            if got.kind == "todo":
                return self._make(m.Todos("open"))
            return self._read_again(got) if got.kind == "written" or got is self._memory.looked_at else got
        if (
            isinstance(value, m.Contents)
            and isinstance(value.file, m.FileBack)
            and latest
            and latest.kind == "document"
            and latest is not self._memory.looked_at
        ):
            return latest  # it has just been read
        if isinstance(value, m.Literally):
            raise self._steps.make_refusal("asks for nothing that a tool could do with this text")
        if isinstance(value, m.Summary | m.Count) and _means_several(value.of) and latest and latest.members:
            return self._for_each(value, latest.members)
        return self._make(value)

    def _for_each(self, value: m.Summary | m.Count, members: Sequence[StepResult]) -> StepResult | None:
        """Make the steps of `summarize them`: the same for each member."""
        had = []
        for member in members:
            self._memory.remember(member)
            had.append(self._make(replace(value, of=m.Back("any", "that"))))
        self._memory.remember(StepResult("several", members=tuple(had)))
        return None

    def _read_again(self, got: StepResult) -> StepResult:
        if got.file is None:
            raise self._steps.make_refusal("speaks of something that cannot be shown")
        return self._read(got.file)

    def _make_folder(self, folder: m.Folder, inside: m.Folder) -> None:
        base = self._paths.find_folder(inside)
        path = (folder.path or ".") if base == "." else f"{base}/{folder.path}"
        self._steps.add("create_directory", {"path": escape(path)}, f"Make the folder {path}")
        self._memory.folder = path

    def _write(self, action: m.Write) -> None:
        content = self._make_content(action.content)
        for file in action.files:
            path = self._paths.find_file(file, writing=True)
            name, title = ("append_file", "Append to") if action.append else ("write_file", "Write")
            title = title if content else "Create"
            self._steps.add(name, {"path": path, "content": content}, f"{title} {path}")
        if not isinstance(action.content, m.Back):
            self._memory.remember(StepResult("written", file=self._memory.file))

    def _transfer(self, action: m.Transfer, file: m.File) -> None:
        if action.tool == "copy_file" and isinstance(file, m.FileBack) and isinstance(action.to, m.NamedFile):
            said = m.Back("any", file.said)
            if not self._memory.is_file(said):
                self._write(m.Write(said, (action.to,)))
                return
        source = self._paths.find_file(file)
        if isinstance(action.to, m.Folder):
            name = m.NamedFile(source.rpartition("/")[2], action.to)
        elif action.renames and "/" in source and action.to.folder == m.ROOT and "/" not in action.to.path:
            folder = source.rpartition("/")[0]
            raise self._steps.make_refusal(
                f'is ambiguous: the file may stay in its folder or leave it; say "to {folder}/{action.to.path}", or '
                f'"move {source} to {action.to.path}"'
            )
        else:
            name = action.to
        if action.tool == "copy_file" and not self._steps.toolbox.has("copy_file"):
            self._write(m.Write(m.Contents(file), (name,)))
            return
        destination = self._paths.find_file(name, writing=True)
        done = "Copy" if action.tool == "copy_file" else "Rename" if action.renames else "Move"
        title = f"{done} {source} to {destination}"
        self._steps.add(action.tool, {"source": source, "destination": destination}, title)
        self._memory.remember(StepResult("written", file=destination))

    def _make_condition(self, condition: m.Condition) -> str:
        """Add the steps that a condition needs, and return it. Raises: PlanningError."""
        if isinstance(condition, m.IfExists):
            if set('"\\{}') & set(condition.path):
                raise self._steps.make_refusal("names a file with marks that no condition can hold")
            found = self._paths.search(m.Search(condition.path))
            if found.files is None:
                raise self._steps.make_refusal("asks whether a file exists, which this file server says only as text")
            self._memory.file = condition.path
            self._memory.remember(StepResult("written", file=condition.path))
            return f'"{condition.path}" {"not in" if condition.no else "in"} ${{{found.files}}}'
        number = self._to_number(condition.value).number
        if isinstance(condition.value, m.Count | m.HowMany):
            self._memory.look_at_text()
        return f"{number} {condition.comparison}"

    def _make_content(self, value: m.Value) -> str:
        if isinstance(value, m.Literally):
            return escape(value.text)
        got = self._resolve_back(value) if isinstance(value, m.Back) else self._make(value)
        if got.kind == "written":
            got = self._read_again(got)
        if got.text is None:
            raise self._steps.make_refusal("speaks of something that is no text to write")
        return got.text

    def _add_to(self, what: m.Value, to: m.Back) -> None:
        """Make the steps of `add 5 to it`, where `it` is a number or a file."""
        latest = self._memory.latest
        if latest is None:
            raise self._memory.make_unresolved_error(to.said)
        just_saved = isinstance(self._last, m.Write) and isinstance(self._last.content, m.Back)
        if latest.number is not None and not just_saved:
            self._make(m.Operation("+", (to, what)))
        elif latest.kind == "written" and isinstance(what, m.Number):
            self._write(m.Write(m.Literally(what.text), (m.FileBack(to.said),), append=True))
        else:
            raise self._steps.make_refusal(f"is ambiguous: {to.said!r} may be the number or the file")

    def _add_todos(self, action: m.AddTodos) -> None:
        if action.another and not isinstance(self._last, m.AddTodos):
            raise self._steps.make_refusal("says 'another', and nothing like it came before")
        for text in action.texts:
            line = " ".join(text.split())
            if not line:
                raise self._steps.make_refusal("names an empty todo")
            step = self._steps.add("todo.add", {"text": escape(text)}, f"Add the todo {line}")
            self._memory.remember(StepResult("todo", todo=f"${{{step}.output.id}}"))

    def _end_todo(self, tool: str, todo: m.WhichTodo) -> None:
        done = "Complete" if tool == "complete" else "Delete"
        latest = self._memory.latest
        if todo.every is not None:
            self._end_todos(tool, todo.every)
        elif todo.id is not None:
            self._steps.add(f"todo.{tool}", {"id": todo.id}, f"{done} todo {todo.id}")
        elif todo.text is not None and todo.partly and tool == "delete":
            raise self._steps.make_refusal(
                "does not name the todo that it deletes: say its number, as in 'delete todo 3', or its whole text, as "
                "in 'delete the todo \"buy milk\"'; 'list my todos' shows both"
            )
        elif todo.text is not None:
            about = "about " if tool == "complete" else ""
            self._steps.add(f"todo.{tool}", {"text": escape(todo.text)}, f"{done} the todo {about}{todo.text}")
        elif latest is None or latest.todo is None:
            raise self._steps.make_refusal(
                "is ambiguous: no todo was spoken of just before; give its number or its text, or the name of the file"
            )
        else:
            self._steps.add(f"todo.{tool}", {"id": latest.todo}, f"{done} that todo")

    def _end_todos(self, tool: str, status: m.Status) -> None:
        if tool == "complete" and status == "done":
            raise self._steps.make_refusal("asks to complete what is done already")
        if tool == "complete":
            self._steps.add("todo.complete_all", {}, "Complete all open todos")
        else:
            named = "all todos" if status == "all" else f"all {status} todos"
            self._steps.add("todo.delete_all", {"status": status}, f"Delete {named}")

    # Values

    def _make(self, value: m.Value) -> StepResult:
        """Return the result for a value, from new steps or from an earlier one."""
        match value:
            case m.Back():
                return self._resolve_back(value)
            case m.Literally(text):
                return StepResult("literal", text=escape(text))
            case m.Contents(file):
                return self._make_contents(file)
            case m.AllContents(folder):
                return self._paths.read_all(folder)
            case m.WebPage(url):
                return self._steps.make("document", "fetch", {"url": escape(url)}, f"Fetch {url}")
            case m.Summary(of, sentences):
                more = {} if sentences is None else {"sentences": sentences}
                return self._steps.make(
                    "summary", "summarize", {"text": self._make_text(of), **more}, "Summarize the text"
                )
            case m.Count(of, measure, known):
                taken = self._memory.find_latest(lambda got: got.kind == measure) if known else None
                return taken or self._count(of, measure)
            case m.HowMany(of):
                return self._count_items(of)
            case m.SomeLines(of, lines, end):
                which = "first" if end == "head" else "last"
                title = f"Take the {which} line" if lines == 1 else f"Take the {which} {lines} lines"
                return self._steps.make("found", end, {"text": self._make_text(of), "lines": lines}, title)
            case m.LinesWith(of, query, each):
                arguments = {"text": self._make_text(of), "query": escape(query)}
                many = "occurrences" if each else "count"
                return self._steps.make("found", "find", arguments, f"Find the lines with {query}", many=many)
            case m.Today():
                return self._steps.make("date", "today", {}, "Look up today's date")
            case m.Info(file):
                path = self._paths.find_file(file)
                return self._steps.make("info", "file_info", {"path": path}, f"Look up the details of {path}")
            case m.Todos(status):
                title = "List all todos" if status == "all" else f"List the {status} todos"
                return self._steps.make("list", "todo.list", {"status": status}, title, many="count")
            case m.Listing(folder):
                return self._paths.list_files(folder)
            case m.Search():
                return self._paths.search(value)
            case m.Number(text):
                return StepResult("number", text=text, number=to_number(text))
            case m.Operation() | m.Formula():
                return self._calculate(value)

    def _count(self, of: m.Value, measure: m.Measure) -> StepResult:
        arguments = {"text": self._make_text(of)}
        if measure == "words":
            return self._steps.make("words", "count_words", arguments, "Count the words", number="words")
        # The text of that result is the number of words, so the other count gets its own step.
        step = self._steps.add("count_words", arguments, f"Count the {measure}")
        return self._evaluate(f"${{{step}.output.{measure}}}", measure, f"Take the number of {measure}")

    def _count_items(self, of: m.Value) -> StepResult:
        got = self._make(of)
        if got.many is not None:
            return self._evaluate(got.many, "count", "Take their number")
        raise self._steps.make_refusal("asks to count something that cannot be counted here")

    def _calculate(self, value: m.Operation | m.Formula) -> StepResult:
        if isinstance(value, m.Formula):
            return self._evaluate(escape(value.text))
        operands = [self._make_operand(each) for each in value.operands]
        formula = build_expression(value.op, operands)
        kind = _RESULTS.get(value.op, "number")
        if value.op in _BASIC and len(operands) == _SIDES and all(is_plain(each) for each in operands):
            a, b = operands
            return self._steps.make(
                kind, _BASIC[value.op], {"a": a, "b": b}, f"Calculate {show_expression(formula)}", number="result"
            )
        is_average = value.op == "/" and isinstance(value.operands[0], m.Operation) and value.operands[0].op == "+"
        return self._evaluate(formula, "average" if is_average else kind)

    def _evaluate(self, formula: str, kind: str = "number", title: str = "") -> StepResult:
        title = title or f"Calculate {show_expression(formula)}"
        if is_plain(formula):
            formula = f"({formula})"  # a whole reference would keep its type, and an expression is text
        return self._steps.make(kind, "evaluate", {"expression": formula}, title, number="result")

    def _make_operand(self, value: m.Value) -> JsonValue:
        """Return a number, a whole reference to one, or an expression in brackets."""
        if isinstance(value, m.Number):
            return to_number(value.text)
        if isinstance(value, m.Formula):
            return f"({escape(value.text)})"
        if isinstance(value, m.Operation):
            return f"({build_expression(value.op, [self._make_operand(each) for each in value.operands])})"
        return self._to_number(value).number

    def _to_number(self, value: m.Value) -> StepResult:
        got = self._memory.number(value) if isinstance(value, m.Back) else self._make(value)
        if got.kind == "document":
            return StepResult("number", text=got.text, number=f"({got.text})")
        if got.number is None:
            raise self._steps.make_refusal("asks to calculate with something that is no number")
        return got

    # Texts and what came before

    def _make_text(self, of: m.Value) -> str:
        """Return the template of the text to work on."""
        if isinstance(of, m.Contents) and isinstance(of.file, m.FileBack):
            of = m.Back("any", "it")
        got = self._memory.text(of) if isinstance(of, m.Back) and of.sort not in {"text", "summary"} else self._make(of)
        if got.kind == "written":
            got = self._read_again(got)
        if got.text is None:
            raise self._steps.make_refusal("speaks of something that is no text to work on")
        return got.text

    def _resolve_back(self, back: m.Back) -> StepResult:
        memory = self._memory
        if back.sort == "number":
            return memory.number(back)
        if back.sort == "summary" and memory.find_latest(lambda got: got.kind == "summary") is None:
            return self._make(m.Summary(m.Back("any", "it")))
        if back.sort == "text":
            if memory.find_latest(lambda got: got.kind in {"document", "written"}) is None and memory.file:
                return self._read(memory.file)
            got = memory.thing(back)
            return self._read_again(got) if got.kind == "written" else got
        got = memory.thing(back)
        return self._make(m.Todos("open")) if got.kind == "todo" and back.sort == "list" else got

    def _make_contents(self, file: m.File) -> StepResult:
        latest = self._memory.latest
        if isinstance(file, m.FileBack) and latest is not None and latest.kind == "document":
            return latest if latest is not self._memory.looked_at else self._read_again(latest)
        return self._read(self._paths.find_file(file))

    def _read(self, path: str) -> StepResult:
        title = "Read that file" if path.startswith("${") else f"Read {path}"
        step = self._steps.add("read_file", {"path": path}, title)
        self._memory.file = path
        return self._memory.remember(StepResult("document", text=f"${{{step}.text}}", file=path))


def _means_several(value: m.Value) -> bool:
    return isinstance(value, m.Back) and value.said in {"them", "these", "those"}
