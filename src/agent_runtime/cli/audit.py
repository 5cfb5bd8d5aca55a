"""`agent-runtime audit`: whether what is kept of tasks is as it was written, and every call one that was approved."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.client import Client, RefusedError, UnavailableError
from agent_runtime.cli.service import key_of, settings_of
from agent_runtime.domain.audit_export import export as exported
from agent_runtime.domain.audit_export import find_export_faults, parse_export
from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import ToolCalled
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.opening import open_for_reading
from agent_runtime.storage.read_only import ReadOnlyDatabase
from agent_runtime.text.escaping import escape_hidden

_PAGE = 200

UNDETECTABLE = (
    "a history that was written anew with hashes that fit: another name in an approval, an approval that nobody gave",
    "records taken off the end together with what the task's row says of them; a task removed altogether",
    "what stands beside the journals: the to-do list, what servers listed, the order of the list of tasks",
    "what was changed before the journals had hashes",
)
"""What whoever may write the whole database can do unseen. A head or an export kept elsewhere shows the first two."""


@dataclass(slots=True)
class _Report:
    tasks: int = 0
    records: int = 0
    calls: int = 0
    faults: list[AuditFault] = field(default_factory=list)

    def add(self, kept: StoredJournal, faults: list[AuditFault]) -> None:
        self.faults += faults
        self.tasks += 1
        self.records += len(kept.entries)
        self.calls += sum(entry.type == ToolCalled.type for entry in kept.entries)

    def add_export(self, document: Any) -> None:
        """Take up one export. Raises: ValueError where it is none."""
        self.add(parse_export(document), find_export_faults(document))


def verify(options: argparse.Namespace) -> int:
    """Check a file, a task or all tasks; 0 where nothing is wrong, 1 where anything is."""
    report = _Report()
    if options.file is not None:
        _add_file(report, options.file)
    else:
        with _source(options) as source:
            _add_tasks(report, source, options.task_id)
    counts = {"tasks": report.tasks, "records": report.records, "calls": report.calls}
    if options.json:
        faults = [asdict(fault) for fault in report.faults]
        output.document({**counts, "faults": faults, "cannot_detect": UNDETECTABLE})
    else:
        for fault in report.faults:
            output.result(escape_hidden(str(fault)))
        found = _format_count(len(report.faults), "faults") if report.faults else "no change was found"
        output.say(", ".join(_format_count(number, name) for name, number in counts.items()) + f": {found}.")
        output.say("This cannot detect:")
        for change in UNDETECTABLE:
            output.say(f"- {change}")
    return 1 if report.faults else 0


def _format_count(number: int, things: str) -> str:
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def export(options: argparse.Namespace) -> int:
    """Print the export of a task, for somebody else to verify."""
    with _source(options) as source:
        task_id = options.task_id
        document = source.audit(task_id) if isinstance(source, Client) else exported(source.read(task_id))
        output.document(document, ascii_only=True)
    return 0


_Source = ReadOnlyDatabase | Client


@contextmanager
def _source(options: argparse.Namespace) -> Iterator[_Source]:
    """The service that --server names; else the database itself, whether or not a service runs on it."""
    if options.server:
        yield Client(lambda: str(options.server), key_of(options))
        return
    settings, _ = settings_of(options)
    with open_for_reading(settings.storage) as file:
        yield file


def _add_tasks(report: _Report, source: _Source, task_id: str | None) -> None:
    if isinstance(source, ReadOnlyDatabase) and task_id is None:
        report.faults += source.damages()
    try:
        ids = [task_id] if task_id is not None else _list_ids(source)
    except StoreUnavailableError as error:
        report.faults.append(AuditFault("", None, "tasks", str(error)))
        return
    for one in ids:
        try:
            _add_task(report, source, one)
        except (StoreUnavailableError, UnavailableError) as error:
            report.faults.append(AuditFault(one, None, "journal", str(error)))
        except ValueError as error:
            report.faults.append(AuditFault(one, None, "export", f"{error}."))
        except (TaskNotFoundError, RefusedError) as error:
            gone = isinstance(error, TaskNotFoundError) or error.status == HTTPStatus.NOT_FOUND
            if task_id is not None or not gone:  # of all tasks, one may be deleted meanwhile
                raise


def _add_task(report: _Report, source: _Source, task_id: str) -> None:
    if isinstance(source, Client):
        report.add_export(source.audit(task_id))
    else:
        kept = source.read(task_id)
        report.add(kept, find_journal_faults(kept))


def _list_ids(source: _Source) -> list[str]:
    if isinstance(source, ReadOnlyDatabase):
        return source.ids()
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = source.tasks(None, _PAGE, cursor)
        ids += [task["task_id"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids


def _add_file(report: _Report, file: Path) -> None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: it cannot be read as an export: {error}.") from error
    try:
        report.add_export(document)
    except ValueError as error:
        report.faults.append(AuditFault("", None, str(file), f"{error}."))
