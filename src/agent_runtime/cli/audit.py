"""`agent-runtime audit`: verify that stored journals are unchanged, and that every call was approved."""

import argparse
import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.service import key_of, settings_of
from agent_runtime.cli.task_ids import complete_id
from agent_runtime.client import Client, NotFoundError, UnavailableError
from agent_runtime.config import Settings
from agent_runtime.domain.audit_export import export as exported
from agent_runtime.domain.audit_export import find_export_faults, parse_export
from agent_runtime.domain.commit_verification import CommitFindings
from agent_runtime.domain.commits import CommitHead, parse_head
from agent_runtime.domain.errors import ConfigurationError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import ToolCalled
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.stored_journal import AuditFault, StoredJournal
from agent_runtime.storage.base import StoredDatabase
from agent_runtime.storage.opening import open_for_reading, open_store
from agent_runtime.storage.owner import own_storage
from agent_runtime.text.escaping import escape_hidden

_PAGE = 200

_BESIDE = "what stands beside the journals: the to-do list, what servers listed, the order of the list of tasks"
_BEFORE = "what was changed before the journals had hashes, or the store its first commit"

UNDETECTABLE = {
    "journals": (
        "a history written anew with hashes that fit: another name in an approval, an approval that nobody gave",
        "records taken off the end together with what the task's row says of them; a task removed altogether, or added",
        _BESIDE,
        _BEFORE,
    ),
    "commits": (
        "a history written anew together with the commits: anything can have been changed, removed or added",
        "the newest commits cut off, together with all that they name",
        "commits forged after the newest: for added tasks or records, or a tombstone that looks like a deletion",
        _BESIDE,
        _BEFORE,
    ),
    "head": (
        "what came after the head: written anew, forged, or cut off, together with its commits",
        "a task removed with a tombstone that was forged after the head: it looks like one that was deleted",
        _BESIDE,
        _BEFORE,
    ),
}
"""Changes that somebody with write access to the whole database can hide from a verification of exports or single tasks
(`journals`), of a whole database (`commits`), or of a whole database against a head from elsewhere (`head`)."""


@dataclass(slots=True)
class _Report:
    tasks: int = 0
    records: int = 0
    calls: int = 0
    commits: int = 0
    looked_at: str = "journals"
    """A key of `UNDETECTABLE`."""
    faults: list[AuditFault] = field(default_factory=list)

    def add(self, kept: StoredJournal, faults: list[AuditFault]) -> None:
        self.faults += faults
        self.tasks += 1
        self.records += len(kept.entries)
        self.calls += sum(entry.type == ToolCalled.type for entry in kept.entries)

    def add_export(self, document: Any) -> None:
        """Add one export. Raises: ValueError if the document is not an export."""
        self.add(parse_export(document), find_export_faults(document))


def verify(options: argparse.Namespace) -> int:
    """Check a file, a task or the whole database. Return 0 without faults, and 1 otherwise."""
    kept_head = _kept_head(options)
    report = _Report()
    if options.file is not None:
        _add_file(report, options.file)
    else:
        with _source(options) as source:
            _complete_id(options, source)
            if options.task_id is None and not isinstance(source, Client):
                _add_database(report, source, kept_head)
            _add_tasks(report, source, options.task_id)
    _show(report, as_json=options.json)
    return 1 if report.faults else 0


def _kept_head(options: argparse.Namespace) -> CommitHead | None:
    """Parse the head that --head names. Raises: ConfigurationError."""
    if options.head is None:
        return None
    if options.server:
        raise ConfigurationError("--head needs the database itself: leave out --server, and name it with --data-dir.")
    try:
        return parse_head(options.head)
    except ValueError as error:
        raise ConfigurationError(f"--head {options.head}: {error}; `audit head` prints one.") from error


def _show(report: _Report, *, as_json: bool) -> None:
    counts = {"tasks": report.tasks, "records": report.records, "calls": report.calls, "commits": report.commits}
    undetectable = UNDETECTABLE[report.looked_at]
    if as_json:
        output.document({**counts, "faults": [asdict(fault) for fault in report.faults], "cannot_detect": undetectable})
        return
    for fault in report.faults:
        output.result(escape_hidden(str(fault)))
    found = _format_count(len(report.faults), "faults") if report.faults else "no change was found"
    output.say(", ".join(_format_count(number, name) for name, number in counts.items()) + f": {found}.")
    output.say("This cannot detect:")
    for change in undetectable:
        output.say(f"- {change}")


def _format_count(number: int, things: str) -> str:
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def head(options: argparse.Namespace) -> int:
    """Print the newest commit of the store, which proves all earlier ones, to keep elsewhere."""
    settings, _ = settings_of(options)
    with open_for_reading(settings.storage) as database:
        _expect_commits(database)
        _print_head(database.commit_head(), as_json=options.json)
    return 0


def checkpoint(options: argparse.Namespace) -> int:
    """Write a checkpoint and print its head; if an earlier commit is faulty, print the faults instead."""
    settings, _ = settings_of(options)
    with open_for_reading(settings.storage) as database, own_storage(settings):
        found = database.verify_commits() if database.has_commits else CommitFindings()
        if found.faults:
            for fault in found.faults:
                output.result(escape_hidden(str(fault)))
            output.say("Nothing was written: a checkpoint would hide the faults of earlier commits.")
            return 1
        _print_head(asyncio.run(_take_checkpoint(settings, drop=options.drop)), as_json=options.json)
    if options.drop:
        output.say("The commits before it are gone. Keep this head elsewhere: earlier ones can no longer be compared.")
    return 0


async def _take_checkpoint(settings: Settings, *, drop: bool) -> CommitHead:
    async with open_store(settings.storage) as store:
        await store.checkpoint(drop=drop)
        return await store.commit_head()


def _print_head(newest: CommitHead, *, as_json: bool) -> None:
    if as_json:
        output.document({"head": str(newest), "position": newest.position, "hash": newest.hash})
    else:
        output.result(str(newest))


def _expect_commits(database: StoredDatabase) -> None:
    if not database.has_commits:
        raise ConfigurationError(
            "The database was written before stores recorded their commits. Start the service on it once, which begins "
            "with a checkpoint; until then there is no head."
        )


def export(options: argparse.Namespace) -> int:
    """Print the export of a task, which others can verify."""
    with _source(options) as source:
        _complete_id(options, source)
        task_id = options.task_id
        document = source.export_audit(task_id) if isinstance(source, Client) else exported(source.read(task_id))
        output.document(document, ascii_only=True)
    return 0


_Source = StoredDatabase | Client


@contextmanager
def _source(options: argparse.Namespace) -> Iterator[_Source]:
    """Yield the service that --server names, or the database itself, which a service may be using."""
    if options.server:
        with Client(options.server, key_of(options)) as client:
            yield client
        return
    settings, _ = settings_of(options)
    with open_for_reading(settings.storage) as file:
        yield file


def _complete_id(options: argparse.Namespace, source: _Source) -> None:
    complete_id(options, lambda: iter(sorted(_list_ids(source), reverse=True)))


def _add_database(report: _Report, database: StoredDatabase, kept_head: CommitHead | None) -> None:
    """Verify the database file, and the commits with the journals that they name."""
    report.faults += database.damages()
    if kept_head is not None:
        _expect_commits(database)
    try:
        if not database.has_commits:
            return
        found = database.verify_commits(kept_head)
    except StoreUnavailableError as error:
        report.faults.append(AuditFault("", None, "commits", str(error)))
        return
    report.commits = found.commits
    report.faults += found.faults
    report.looked_at = "head" if found.head_compared else "commits"


def _add_tasks(report: _Report, source: _Source, task_id: str | None) -> None:
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
        except (TaskNotFoundError, NotFoundError):
            if task_id is not None:  # when all tasks are checked, one may be deleted meanwhile
                raise


def _add_task(report: _Report, source: _Source, task_id: str) -> None:
    if isinstance(source, Client):
        report.add_export(source.export_audit(task_id))
    else:
        kept = source.read(task_id)
        report.add(kept, find_journal_faults(kept))


def _list_ids(source: _Source) -> list[str]:
    if not isinstance(source, Client):
        return source.ids()
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = source.list_tasks(limit=_PAGE, cursor=cursor)
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
