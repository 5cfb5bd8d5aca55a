"""The tables of a store are brought up to date on request, beside running replicas where those bear it."""

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from agent_runtime.config import StorageSettings
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.task import Task
from agent_runtime.storage.opening import open_for_reading, read_schema, update_schema
from agent_runtime.storage.postgres import migrating
from agent_runtime.storage.postgres.connecting import Database
from agent_runtime.storage.postgres.migrating import Migration
from agent_runtime.storage.postgres.store import PostgresStore
from agent_runtime.storage.sqlite.database import MIGRATIONS
from command_line import Folder
from journals import task_submitted

SCRIPTS = tuple(script for script, _ in MIGRATIONS)
FIRST = migrating.MIGRATIONS[0]


def test_a_sqlite_file_is_brought_up_to_date_once(tmp_path: Path) -> None:
    storage = StorageSettings(url=f"sqlite:///{tmp_path / 'tasks.db'}")
    assert read_schema(storage).missing == SCRIPTS
    assert not (tmp_path / "tasks.db").exists()
    assert update_schema(storage).missing == ()
    assert read_schema(storage).number == len(SCRIPTS)
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer version"):
        read_schema(storage)


def test_a_schema_on_postgresql_is_brought_up_to_date_once(postgres_url: str) -> None:
    storage = StorageSettings(url=postgres_url)
    assert read_schema(storage).missing == tuple(one.script for one in migrating.MIGRATIONS)
    assert update_schema(storage).missing == ()
    assert update_schema(storage).missing == ()


async def test_a_migration_that_running_replicas_cannot_bear_waits_until_they_are_stopped(
    postgres_url: str, tmp_path: Path
) -> None:
    database = Database(postgres_url)
    async with PostgresStore(database, exclusive=False) as replica:
        number = migrating.read_schema(database).number
        bearable = Migration(str(_write(tmp_path, "bearable.sql", "CREATE TABLE bearable (id int)")), oldest=number)
        harsh = Migration(str(_write(tmp_path, "harsh.sql", "ALTER TABLE events RENAME TO records")), oldest=number + 2)
        known = migrating.MIGRATIONS
        assert migrating.update_schema(database, (*known, bearable)).number == number + 1
        await replica.check()
        with pytest.raises(AlreadyOwnedError, match=r"harsh\.sql, and it is running\. Stop every process"):
            migrating.update_schema(database, (*known, bearable, harsh))
        assert migrating.read_schema(database, (*known, bearable, harsh)).missing == (harsh.script,)
        await replica.check()
    assert migrating.update_schema(database, (*known, bearable, harsh)).missing == ()
    with pytest.raises(ConfigurationError, match="newer version"):
        migrating.read_schema(database)


async def test_a_database_without_threads_is_read_and_brought_up_to_date(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with PostgresStore(database) as store:
        await store.append(Task("old"), [task_submitted()])
    with database.connect() as connection:
        connection.execute("ALTER TABLE tasks DROP COLUMN thread")
    with open_for_reading(StorageSettings(url=postgres_url)) as stored:
        assert find_journal_faults(stored.read("old")) == []
    with database.connect() as connection:
        connection.execute(files(migrating.__package__).joinpath("migrations", "0009_threads.sql").read_bytes())
    async with PostgresStore(database) as store:
        assert (await store.page(thread="c")).tasks == ()
        threaded = task_submitted().model_copy(update={"thread": "c"})
        assert (await store.append(Task("new"), [threaded])).thread == "c"
        assert [task.task_id for task in (await store.page()).tasks] == ["new", "old"]
        assert [task.task_id for task in (await store.page(thread="c")).tasks] == ["new"]


def _write(folder: Path, name: str, statement: str) -> Path:
    path = folder / name
    path.write_text(statement, encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_command_says_what_it_does_and_refuses_a_database_in_use(tmp_path: Path, postgres_url: str) -> None:
    folder = Folder(tmp_path)
    checked = folder("migrate", "--check")
    assert (checked.returncode, checked.stdout.split()) == (1, list(SCRIPTS))
    assert "are missing; its schema is 0" in checked.stderr
    done = folder.json("migrate")
    assert (done["applied"], done["missing"], done["schema"]) == (list(SCRIPTS), [], len(SCRIPTS))
    assert folder("migrate", "--check").returncode == 0
    with folder.serve() as service:
        assert "up to date" in folder("migrate").stderr
        with closing(sqlite3.connect(tmp_path / "data" / "agent-runtime.db")) as connection:
            connection.execute("PRAGMA user_version = 5")
        refused = folder("migrate")
        assert refused.returncode == 2
        assert f"owned by process {service.process.pid}" in refused.stderr
    folder.env["AGENT_RUNTIME_STORAGE__URL"] = postgres_url
    done = folder.json("migrate")
    assert done["applied"] == [one.script for one in migrating.MIGRATIONS]
    assert "postgres" in done["store"]
