"""Output for people: messages on standard error, tables and results on standard output, control characters escaped."""

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from select import select
from typing import TYPE_CHECKING, Any

from agent_runtime.text.escaping import clear_name, escape_hidden, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_POLL_S = 0.25
_LONGEST_ARGUMENTS = 2000
_WIDTH = 120
"""The width of a table that is not written to a terminal, unless COLUMNS says another."""

_PAIR = 2
_LEAST = 16
"""The columns of a terminal that a cell gets in a table at least, unless it needs fewer."""
_AROUND = 3
"""The columns of a terminal between two cells of a table."""

_LONGEST_STATE = len("warn")
_USUAL_CHECK = len("reach of filesystem")

_COLOURS = {
    "read": "green",
    "write": "yellow",
    "destructive": "red",
    "unknown": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


def say(text: str) -> None:
    """Print a message on standard error."""
    sys.stderr.write(escape_hidden(text, keep="\n") + "\n")
    sys.stderr.flush()


def ask(question: str) -> str | None:
    """Ask a person at the terminal. Return the line without white space around it; None at the end of input."""
    sys.stderr.write(question)
    sys.stderr.flush()
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as typed:
        # Poll: a Ctrl-C just before a blocking read would take effect only after the next line. Unbuffered: `select`
        # does not see a line in a buffer.
        while not select([typed], [], [], _POLL_S)[0]:
            pass
        line = typed.readline().decode(errors="replace")
    return line.strip() if line else None


def is_person_there() -> bool:
    """Return True if standard input and standard error are a terminal, so that a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_yes_or_no(question: str) -> bool | None:
    """Ask a person until the answer is yes or no. Return None at the end of input."""
    while (answer := ask(f"{question} [y/n] ")) not in {"y", "yes", "n", "no", None}:
        pass
    return None if answer is None else answer.startswith("y")


def describe_effect(tool: Mapping[str, Any]) -> str:
    """Return the effect of a tool, and whether its calls may be repeated where the effect does not say so."""
    repeatable = tool["idempotent"] and tool["effect"] != "read"
    return f"{tool['effect']}{', repeatable' if repeatable else ''}"


def result(text: str) -> None:
    """Print a result on standard output: unchanged to a file or program, escaped to a terminal."""
    sys.stdout.write((escape_hidden(text, keep="\n\t") if sys.stdout.isatty() else text) + "\n")


def document(value: Any, *, ascii_only: bool = False) -> None:
    """Print one JSON document on standard output."""
    ascii_only = ascii_only or sys.stdout.encoding.lower() != "utf-8"
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=ascii_only) + "\n")


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: Collection[str] = (),
    to_stdout: bool = True,
) -> None:
    """Print a table, with the whole text of each cell, and colours for effects and states.

    People copy the first column and those that `whole` names, so no line of them is broken. Where too little room is
    for that, or for the other columns, each row becomes a block with a line for each cell.
    """
    from rich import box  # noqa: PLC0415 - not needed for --help, nor for results alone
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = _console(to_stdout=to_stdout)
    if title:  # a title of the table itself would be as narrow as its columns
        console.print(Text(escape_hidden(title)))
    cells = [
        [Text(escape_hidden(cell, keep="\n"), style=_COLOURS.get(cell.partition(",")[0], "")) for cell in row]
        for row in rows
    ]
    unbroken = {0, *map(columns.index, whole)}
    if len(columns) > _PAIR and console.width < _find_least_width(console, columns, cells, unbroken):
        for row in cells:
            block = Table.grid("", "", padding=(0, 2))
            for column, cell in zip(columns, row, strict=True):
                block.add_row(column, cell)
            console.print(block, "")
        return
    shown = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for number, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=number in unbroken)
    for row in cells:
        shown.add_row(*row)
    console.print(shown)


def _find_least_width(
    console: "Console", columns: Sequence[str], cells: Sequence[Sequence["Text"]], unbroken: Collection[int]
) -> int:
    """Return the width that a table needs, so that cells are not broken that should not be, and others are readable."""
    least = 1
    for number, column in enumerate(columns):
        longest = max((console.measure(row[number]).maximum for row in cells), default=0)
        least += _AROUND + max(len(column), longest if number in unbroken else min(longest, _LEAST))
    return least


def print_finding(check: str, state: str, detail: str) -> None:
    """Print one finding of the doctor at once, with the lines of its detail below each other."""
    from rich.text import Text  # noqa: PLC0415 - as above

    console = _console(to_stdout=True)
    check = escape_hidden(check).ljust(_USUAL_CHECK)
    head = Text.assemble((state.ljust(_LONGEST_STATE), _COLOURS[state]), f"  {check}  ")
    room = max(console.width - head.cell_len, _LEAST)
    for line in Text(escape_hidden(detail, keep="\n")).wrap(console, room, overflow="fold"):
        line.rstrip()
        console.print(Text.assemble(head, line), soft_wrap=True)
        head = Text(" " * head.cell_len)
    sys.stdout.flush()


def _console(*, to_stdout: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - as above

    stream = sys.stdout if to_stdout else sys.stderr
    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _WIDTH

    class PipedConsole(Console):
        """Leaves it to the command line to end when nobody reads its output any more."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipedConsole(file=stream, width=width, highlight=False)


def tool_table(tools: Iterable[Mapping[str, Any]]) -> None:
    """Print the name of each tool, its effect and what it does."""
    rows = [
        (f"{tool['server']}.{tool['tool']}", describe_effect(tool), one_line(tool["description"] or "", 200))
        for tool in tools
    ]
    table("", ("Tool", "Effect", "What it does"), rows)


def plan_table(task: Mapping[str, Any], *, to_stdout: bool = False) -> None:
    """Print the plan for approval: the tool, the arguments and the effect of each step."""
    contract = task["plan_object"]
    rows = [
        (step["id"], escape_hidden(step["title"]), _tool(step), _arguments(step), _effect(step, state["preview"]))
        for step, state in zip(contract["steps"], task["steps"], strict=True)
    ]
    title = f"Plan of {task['task_id']}, revision {task['plan_revision']}: {_short(contract['goal'], 200)}"
    table(title, ("Step", "What", "Tool", "Arguments", "Effect"), rows, whole={"Tool"}, to_stdout=to_stdout)
    covered = [(state["id"], said) for state in task["steps"] if (said := state["preview"].get("covers"))]
    if covered:
        table("Approved with the plan, and not shown before it is sent", ("", ""), covered, to_stdout=to_stdout)
    for note in task["plan_notes"]:
        say(note)


def _tool(step: Mapping[str, Any]) -> str:
    """Return the tool of a step; for an agent step the tools that its model may call, and how often."""
    if step["kind"] == "tool":
        return tool_name(step)
    return "\n".join(["model", *(f"{tool_name(tool)} x{tool['max_calls']}" for tool in step["tools"])])


def tool_name(named: Mapping[str, Any]) -> str:
    """Return the server and the tool of a step or call, on one line."""
    return escape_hidden(f"{named['server']}.{clear_name(named['tool'])}")


def _arguments(step: Mapping[str, Any]) -> str:
    if step["kind"] == "tool":
        said = _short("\n".join(argument_lines(step["arguments"])), _LONGEST_ARGUMENTS)
    else:
        said = str(step["instruction"])
    return "\n".join([said, *_conditions(step)]).lstrip("\n")


def argument_lines(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each argument of a call: its name, and its value as JSON."""
    for name, value in arguments.items():
        yield escape_hidden(f"{clear_name(name)} = {json.dumps(value, ensure_ascii=False)}")


def _conditions(step: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasoning of a step, and its conditions that differ from the defaults."""
    if reasoning := step.get("reasoning"):
        yield f"because: {one_line(reasoning, _LONGEST_ARGUMENTS)}"
    if step.get("when"):
        yield f"only when {escape_hidden(step['when'])}"
    if step["depends_on"]:
        yield f"after {', '.join(step['depends_on'])}"
    if step.get("retries"):
        yield f"retried {step['retries']} times"
    if step["kind"] != "tool":
        yield f"at most {step['max_turns']} turns"


def _effect(step: Mapping[str, Any], preview: Mapping[str, Any]) -> str:
    """Return the effect of a step, and whether its calls need their own approval."""
    words = [str(preview["effect"])]
    if step["kind"] == "tool" and preview["idempotent"] and preview["effect"] != "read":
        words.append("repeatable")
    if preview["asks"]:
        words.append("asks for each call" if step["kind"] != "tool" else "asks for the call")
    if step.get("preapproved"):
        words.append("preapproved")
    return ", ".join(words)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more; see show --json)"
