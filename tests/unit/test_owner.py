"""One process owns a data directory."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.domain.errors import ConfigurationError, DataDirectoryOwnedError
from agent_runtime.storage.owner import LOCK_FILE, acquire, find_owner

OWNER = """
import sys
from pathlib import Path
from agent_runtime.storage.owner import acquire
with acquire(Path(sys.argv[1])) as owner:
    owner.announce("http://127.0.0.1:8000")
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_the_owner_is_found_while_it_lives_and_not_after(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert find_owner(data_dir) is None
    with acquire(data_dir) as owner:
        found = find_owner(data_dir)
        assert found is not None
        assert (found.pid, found.url) == (os.getpid(), None)
        owner.announce("http://127.0.0.1:8000/a-long-path-that-will-be-replaced")
        owner.announce("http://[::1]:1")
        found = find_owner(data_dir)
        assert found is not None
        assert found.url == "http://[::1]:1"
        assert found.started_at is not None
        assert set(json.loads((data_dir / LOCK_FILE).read_text())) == {"pid", "url", "started_at"}
    assert find_owner(data_dir) is None


def test_a_second_owner_is_refused_and_told_who_owns_it(tmp_path: Path) -> None:
    with acquire(tmp_path / "data") as owner:
        owner.announce("http://127.0.0.1:8000")
        with pytest.raises(DataDirectoryOwnedError, match=r"127\.0\.0\.1:8000") as caught, acquire(tmp_path / "data"):
            pass
        assert (caught.value.url, caught.value.pid) == ("http://127.0.0.1:8000", os.getpid())
    with acquire(tmp_path / "data"):
        pass


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"owned\n"
        found = find_owner(tmp_path / "data")
        assert found is not None
        assert (found.pid, found.url) == (process.pid, "http://127.0.0.1:8000")
        with pytest.raises(DataDirectoryOwnedError), acquire(tmp_path / "data"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert find_owner(tmp_path / "data") is None
    with acquire(tmp_path / "data"):
        found = find_owner(tmp_path / "data")
        assert found is not None
        assert (found.pid, found.url) == (os.getpid(), None)


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    wait = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with acquire(tmp_path / "data"):
        child = subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        with acquire(tmp_path / "data"):
            pass
        assert child.poll() is None


def test_the_directory_and_the_lock_are_closed_to_other_users(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    for data_dir in (loose, tmp_path / "new" / "data"):
        with acquire(data_dir):
            assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
            assert stat.S_IMODE((data_dir / LOCK_FILE).stat().st_mode) == 0o600


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigurationError, match="is a file"), acquire(data_dir):
            pass
        assert find_owner(data_dir) is None


def test_a_directory_that_all_users_share_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigurationError, match="shared"), acquire(tmp_path):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_a_place_that_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="/proc/data"), acquire(Path("/proc/data")):
        pass


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError), acquire(data_dir):
        pass
    with pytest.raises(ConfigurationError):
        find_owner(data_dir)
    assert not (tmp_path / "elsewhere").exists()
