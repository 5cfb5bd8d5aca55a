"""One process owns a database and its data directory."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.storage.owner import LOCK_FILE, acquire, find_owner
from agent_runtime.storage.sqlite.store import SqliteStore

OWNER = """
import sys
from pathlib import Path
from agent_runtime.storage.owner import acquire
with acquire(Path(sys.argv[1]), Path(sys.argv[1]) / "agent-runtime.db") as owner:
    owner.announce("http://127.0.0.1:8000")
    print("owned", flush=True)
    sys.stdin.read()
"""


def home(data_dir: Path) -> tuple[Path, Path]:
    """The data directory, and the database that is in it by default."""
    return data_dir, data_dir / "agent-runtime.db"


def test_the_owner_is_found_while_it_lives_and_not_after(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert find_owner(*home(data_dir)) is None
    with acquire(*home(data_dir)) as owner:
        found = find_owner(*home(data_dir))
        assert found is not None
        assert (found.pid, found.url) == (os.getpid(), None)
        owner.announce("http://127.0.0.1:8000/a-long-path-that-will-be-replaced")
        owner.announce("http://[::1]:1")
        found = find_owner(*home(data_dir))
        assert found is not None
        assert found.url == "http://[::1]:1"
        assert found.started_at is not None
        assert set(json.loads((data_dir / LOCK_FILE).read_text())) == {"pid", "url", "started_at", "brief"}
    assert find_owner(*home(data_dir)) is None


def test_a_second_owner_is_refused_and_told_who_owns_it(tmp_path: Path) -> None:
    with acquire(*home(tmp_path / "data")) as owner:
        owner.announce("http://127.0.0.1:8000")
        with pytest.raises(AlreadyOwnedError, match=r"127\.0\.0\.1:8000") as caught, acquire(*home(tmp_path / "data")):
            pass
        assert (caught.value.url, caught.value.pid) == ("http://127.0.0.1:8000", os.getpid())
    with acquire(*home(tmp_path / "data")):
        pass


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"owned\n"
        found = find_owner(*home(tmp_path / "data"))
        assert found is not None
        assert (found.pid, found.url) == (process.pid, "http://127.0.0.1:8000")
        with pytest.raises(AlreadyOwnedError), acquire(*home(tmp_path / "data")):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert find_owner(*home(tmp_path / "data")) is None
    with acquire(*home(tmp_path / "data")):
        found = find_owner(*home(tmp_path / "data"))
        assert found is not None
        assert (found.pid, found.url) == (os.getpid(), None)


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    wait = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with acquire(*home(tmp_path / "data")):
        child = subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        with acquire(*home(tmp_path / "data")):
            pass
        assert child.poll() is None


def test_the_directory_and_the_lock_are_closed_to_other_users(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    for data_dir in (loose, tmp_path / "new" / "data"):
        with acquire(*home(data_dir)):
            assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
            assert stat.S_IMODE((data_dir / LOCK_FILE).stat().st_mode) == 0o600


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigurationError, match="is a file"), acquire(*home(data_dir)):
            pass
        assert find_owner(*home(data_dir)) is None


def test_a_directory_that_all_users_share_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigurationError, match="shared"), acquire(*home(tmp_path)):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_a_place_that_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="/proc/data"), acquire(*home(Path("/proc/data"))):
        pass


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError), acquire(*home(data_dir)):
        pass
    with pytest.raises(ConfigurationError):
        find_owner(*home(data_dir))
    assert not (tmp_path / "elsewhere").exists()


def by_another_data_dir(folder: Path) -> tuple[Path, Path]:
    return folder / "other", folder / "tasks.db"


def by_a_path_with_dots(folder: Path) -> tuple[Path, Path]:
    return folder / "other", folder / "data" / ".." / "tasks.db"


def by_a_link_to_the_file(folder: Path) -> tuple[Path, Path]:
    (folder / "link.db").symlink_to(folder / "tasks.db")
    return folder / "other", folder / "link.db"


def by_a_link_to_its_folder(folder: Path) -> tuple[Path, Path]:
    (folder / "alias").symlink_to(folder)
    return folder / "other", folder / "alias" / "tasks.db"


def by_a_hard_link(folder: Path) -> tuple[Path, Path]:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "same.db").hardlink_to(folder / "tasks.db")
    return folder / "other", folder / "elsewhere" / "same.db"


def after_the_locks_were_removed(folder: Path) -> tuple[Path, Path]:
    for lock in folder.rglob("*.lock"):
        lock.unlink()
    return folder / "data", folder / "tasks.db"


BY_NAME = [by_another_data_dir, by_a_path_with_dots, by_a_link_to_the_file, by_a_link_to_its_folder]
BY_FILE = [by_a_hard_link, after_the_locks_were_removed]


@pytest.mark.parametrize("way", [*BY_NAME, *BY_FILE])
def test_a_database_has_one_owner_by_whatever_way_it_is_reached(
    tmp_path: Path, way: Callable[[Path], tuple[Path, Path]]
) -> None:
    with acquire(tmp_path / "data", tmp_path / "tasks.db") as owner:
        owner.announce("http://127.0.0.1:8000")
        second = way(tmp_path)
        with pytest.raises(AlreadyOwnedError, match="is owned by") as caught, acquire(*second):
            pass
        if way in BY_NAME:
            assert (caught.value.url, caught.value.pid) == ("http://127.0.0.1:8000", os.getpid())
            found = find_owner(*second)
            assert found is not None
            assert found.url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("way", BY_NAME)
def test_a_database_without_an_owner_can_be_owned_by_another_name(
    tmp_path: Path, way: Callable[[Path], tuple[Path, Path]]
) -> None:
    with acquire(tmp_path / "data", tmp_path / "tasks.db"):
        second = way(tmp_path)
    assert find_owner(*second) is None
    with acquire(*second):
        pass


def test_two_databases_in_one_data_directory_have_one_owner(tmp_path: Path) -> None:
    with (
        acquire(tmp_path / "data", tmp_path / "one.db"),
        pytest.raises(AlreadyOwnedError, match="data directory"),
        acquire(tmp_path / "data", tmp_path / "two.db"),
    ):
        pass


def test_a_data_directory_by_two_names_is_one(tmp_path: Path) -> None:
    """The process does not mistake its own lock for another's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "alias").symlink_to("data")
    with acquire(tmp_path / "alias", tmp_path / "data" / "agent-runtime.db"):
        found = find_owner(tmp_path / "data", tmp_path / "alias" / "agent-runtime.db")
        assert found is not None
        assert found.pid == os.getpid()


def test_a_database_with_two_names_is_refused(tmp_path: Path) -> None:
    """A killed process's last writes lie beside one of the names, and would be lost through the other."""
    (tmp_path / "tasks.db").touch()
    (tmp_path / "copy.db").hardlink_to(tmp_path / "tasks.db")
    with pytest.raises(ConfigurationError, match="2 names"), acquire(tmp_path / "data", tmp_path / "tasks.db"):
        pass
    (tmp_path / "copy.db").unlink()
    with acquire(tmp_path / "data", tmp_path / "tasks.db"):
        pass


async def test_the_lock_outlives_a_connection_to_the_database(tmp_path: Path) -> None:
    """A lock of the process would end when it closes any descriptor of the file."""
    with acquire(tmp_path / "data", tmp_path / "tasks.db"):
        async with SqliteStore(tmp_path / "tasks.db") as store:
            await store.check()
        (tmp_path / "tasks.db").read_bytes()
        with pytest.raises(AlreadyOwnedError), acquire(*after_the_locks_were_removed(tmp_path)):
            pass
