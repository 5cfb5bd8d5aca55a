"""`agent-runtime move`: copy all tasks from one store to another, such as from SQLite to PostgreSQL."""

import argparse
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from agent_runtime.builtin.todo_file import TodoFile
from agent_runtime.builtin.todo_list import TodoDatabase, copy_todos
from agent_runtime.cli import output
from agent_runtime.cli.service import settings_of
from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.storage.moving import MoveReport, open_source, open_target
from agent_runtime.storage.moving import move as move_tasks
from agent_runtime.storage.opening import make_todos
from agent_runtime.text.escaping import escape_hidden

_TELL_S = 2.0


def move(options: argparse.Namespace) -> int:
    """Copy what the target lacks, and say what was done. Return 1 if anything was left out or refused."""
    source, target = (settings_of(options, store=url)[0].storage for url in (options.source, options.target))
    _expect_two(source, target)
    with open_source(source) as reading, open_target(target) as writing:
        report = move_tasks(reading, writing, _Progress().tell)
        todos = 0 if report.refused else _move_todos(source, target)
    _show(report, todos, source.shown, target.shown, as_json=options.json)
    return 1 if report.faults else 0


def _expect_two(source: StorageSettings, target: StorageSettings) -> None:
    """Raises: ConfigurationError if both are the same."""
    if source.on_postgresql or target.on_postgresql:
        same = source.url == target.url
    else:
        same = source.database_path.resolve() == target.database_path.resolve()
    if same:
        raise ConfigurationError("--from and --to name the same store: name another one with --to.")


def _move_todos(source: StorageSettings, target: StorageSettings) -> int | None:
    """Copy the to-do list; see `copy_todos`. Between two files it stays where it is, in the data directory.

    Raises: StoreUnavailableError.
    """
    if not source.on_postgresql and (not target.on_postgresql or not _find_todo_file(source).exists()):
        return 0
    with closing(_open_todos(source)) as reading, closing(_open_todos(target)) as writing:
        return copy_todos(reading, writing)


def _open_todos(settings: StorageSettings) -> TodoDatabase:
    return make_todos(settings) or TodoFile(_find_todo_file(settings))


def _find_todo_file(settings: StorageSettings) -> Path:
    return settings.folder / "todo.db"


class _Progress:
    """Says from time to time how far the move is."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, report: MoveReport) -> None:
        if time.monotonic() - self._told_at > _TELL_S:
            self._told_at = time.monotonic()
            output.say(f"{report.copied + report.continued} tasks so far ...")


def _show(report: MoveReport, todos: int | None, source: str, target: str, *, as_json: bool) -> None:
    numbers = {name: getattr(report, name) for name in ("copied", "continued", "present", "left_out")}
    if as_json:
        faults = [asdict(fault) for fault in report.faults]
        heads = {"source_head": str(report.source_head), "target_head": str(report.target_head)}
        output.document({**numbers, "todos": todos, "refused": report.refused, **heads, "faults": faults})
        return
    for fault in report.faults:
        output.result(escape_hidden(str(fault)))
    if report.refused:
        output.say(f"Nothing was copied: the chain of commits or the database {source} has the faults above.")
        return
    output.say(
        f"{report.copied} tasks copied, {report.continued} continued, {report.present} were there already, "
        f"{report.left_out} left out."
    )
    if todos is None:
        output.say("The to-do list was not copied: the target has one already.")
    elif todos:
        output.say(f"{todos} to-dos copied.")
    output.say(f"The newest commit of {source} is {report.source_head}, that of {target} {report.target_head}.")
    output.say(f"Do not start a service on {source} again: unfinished tasks would run twice.")
