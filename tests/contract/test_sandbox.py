"""The reach of a stdio server under bubblewrap: real servers of the real service try it, in every mode (G12, G14)."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import agent_runtime
from agent_runtime.bootstrap import Runtime, open_runtime
from agent_runtime.builtin.servers import SERVERS
from agent_runtime.config import Secrets, Settings, load_settings
from agent_runtime.domain.tools import Sandbox, StdioServer
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.sandbox import confine, find_bubblewrap_problem
from agent_runtime.registry.file import load_registry
from agent_runtime.services.ports import Lease
from agent_runtime.storage.owner import acquire
from agent_runtime.storage.secret_file import read_secret

pytestmark = pytest.mark.skipif(
    find_bubblewrap_problem() is not None, reason="NOT TESTED: bubblewrap does not work on this machine"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root may do this")

PROBE_SERVER = Path(__file__).parent.parent / "servers" / "probe_server.py"
PYTHON = sorted({sys.prefix, sys.base_prefix})
REGISTRY = """
tool_registry:
  - {id: files, type: builtin, config: {server: filesystem, root: data/files}}
  - {id: todo, type: builtin, config: {server: todo}}
  - {id: other, type: local_stdio, config: {command: other, env: {TOKEN: "${file:%s}"}}}
"""
KEY_LINE = "alice sha256:" + "0" * 64 + " read"
PATIENCE_S = 30.0
NOBODY = 65534

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no network": {"network": False},
    "write": {"write": ["project"]},
    "write and no network": {"write": ["project"], "network": False},
    "read": {"read": [*PYTHON, str(PROBE_SERVER.parent), "project"]},
    "read, write and no network": {
        "read": [*PYTHON, str(PROBE_SERVER.parent)],
        "write": ["project"],
        "network": False,
    },
}
SOME_MODES = ("plain", "write and no network", "read")
every_mode = pytest.mark.parametrize("sandbox", MODES.values(), ids=MODES.keys())
some_modes = pytest.mark.parametrize("sandbox", [MODES[name] for name in SOME_MODES], ids=SOME_MODES)
without_network = pytest.mark.parametrize(
    "sandbox", [mode for mode in MODES.values() if mode.get("network") is False], ids=", ".join
)


class Project:
    """An operator's folder: configuration, keys, `.env`, and the data directory with a files root inside."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "project"
        self.data = self.folder / "data"
        (self.data / "files").mkdir(parents=True)
        (self.data / "files" / "note.txt").write_text("for everybody")
        (self.folder / "work").mkdir()
        self.keys = self.folder / "keys" / "keys.txt"
        self.keys.parent.mkdir()
        self.keys.write_text(KEY_LINE + "\n")
        self.token = self.folder / "token"
        self.token.write_text("the token of another server")
        self.registry = self.folder / "tool_registry.yaml"
        self.registry.write_text(REGISTRY % self.token)
        self.config = self.folder / "config.yaml"
        self.dotenv = self.folder / ".env"
        self.dotenv.write_text("OPENAI_API_KEY=a-key")
        self.configure()

    def configure(self, **settings: Any) -> None:
        said = {"auth": {"keys_file": str(self.keys)}, "data_dir": str(self.data), **settings}
        self.config.write_text(json.dumps(said))

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, environ={})

    def entry(self, sandbox: dict[str, Any], **config: Any) -> StdioServer:
        """Return the entry of a probing server. Paths of its sandbox begin in the folder above the project."""
        places = {name: [str(self.base / each) for each in sandbox.get(name, ())] for name in ("read", "write")}
        said = {"command": sys.executable, "args": [str(PROBE_SERVER)], "cwd": str(self.folder), **config}
        return StdioServer.model_validate(
            {"id": "probe", "type": "local_stdio", "config": said, "sandbox": sandbox | places}
        )

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Runtime]:
        """Run the service, with all its files."""
        settings = self.settings
        with acquire(settings.data_dir, settings.storage.database_path):
            read_secret(settings.data_dir)
            todo = [entry for entry in load_registry(settings.tool_registry, SERVERS) if entry.id == "todo"]
            async with asyncio.timeout(PATIENCE_S), open_runtime(settings, Secrets(), recover=frozenset()) as runtime:
                async with runtime.servers.lease(todo) as lease:
                    await ask(lease, "add", server="todo", text="a todo")
                yield runtime

    @asynccontextmanager
    async def server(self, sandbox: dict[str, Any], **config: Any) -> AsyncIterator[Lease]:
        """Yield a probing server of the running service."""
        async with self.service() as runtime, runtime.servers.lease([self.entry(sandbox, **config)]) as lease:
            yield lease

    @property
    def own_files(self) -> list[Path]:
        """Return the files that the service has written or read, and that no server may see."""
        kept = [path for path in self.data.iterdir() if path.is_file()]
        names = {path.name for path in kept}
        assert {"agent-runtime.db", "agent-runtime.db-wal", "agent-runtime.db-shm"} <= names
        assert {"agent-runtime.lock", "stream-tickets.secret", "todo.db"} <= names
        return [*kept, self.config, self.registry, self.keys, self.dotenv, self.token]


async def ask(lease: Lease, tool: str, *, server: str = "probe", **arguments: Any) -> str:
    result = await lease.call(server, tool, arguments, timeout_s=PATIENCE_S, cancel=asyncio.Event())
    assert not result.is_error, result.text
    return result.text


async def probe(lease: Lease, name: str, *words: object) -> Any:
    return json.loads(await ask(lease, name, words=[str(word) for word in words]))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


NOTHING = ("PermissionError", "FileNotFoundError", "NotADirectoryError", "OSError")
"""The errors of the system for a file that does not exist or cannot be used like this."""


async def assert_out_of_reach(lease: Lease, path: Path | str) -> None:
    """Check that the file can neither be read nor changed, nor replaced by another."""
    assert await probe(lease, "read", path) in (*NOTHING, ""), path
    for change in ("write", "create", "remove", "replace"):
        assert await probe(lease, change, path) in NOTHING, (change, path)


# The service's own files


@pytest.mark.slow
@every_mode
async def test_no_server_can_read_or_change_the_files_of_the_service(project: Project, sandbox: dict[str, Any]) -> None:
    (project.base / "link").symlink_to(project.folder)
    async with project.server(sandbox) as lease:
        own = project.own_files
        before = {path: path.read_bytes() for path in own if not path.name.endswith("-shm")}
        for path in own:
            for view in ("", "/proc/1/root", "/proc/self/root"):
                await assert_out_of_reach(lease, f"{view}{path}")
            await assert_out_of_reach(lease, path.relative_to(project.folder))
            await assert_out_of_reach(lease, project.base / "link" / path.relative_to(project.folder))
        assert {path: path.read_bytes() for path in before} == before
        assert await probe(lease, "names", project.data) in (["files"], "FileNotFoundError")


@some_modes
async def test_no_server_can_put_other_files_in_their_place(project: Project, sandbox: dict[str, Any]) -> None:
    async with project.server(sandbox) as lease:
        before = [(path, path.stat().st_ino) for path in project.own_files]
        for folder in (project.data, project.keys.parent, project.folder, project.base, project.base.parent):
            # A rename in an in-memory folder changes nothing outside.
            outcome = await probe(lease, "rename", folder, f"{folder}-away")
            assert outcome in NOTHING or sandbox, folder
        assert [(path, path.stat().st_ino) for path in project.own_files] == before


async def test_a_keys_file_that_is_replaced_meanwhile_cannot_be_written_either(project: Project) -> None:
    """The file is replaced as operators are told to: by rename, which ends the mask."""
    async with project.server({}) as lease:
        new = project.keys.with_name("new.txt")
        new.write_text(KEY_LINE)
        new.rename(project.keys)
        for change in ("write", "create", "remove", "replace"):
            assert await probe(lease, change, project.keys) in NOTHING, change
        assert project.keys.read_text() == KEY_LINE


@some_modes
async def test_no_server_can_change_the_program_of_the_service(project: Project, sandbox: dict[str, Any]) -> None:
    planted = Path(agent_runtime.__file__).with_name("planted.py")
    try:
        async with project.server(sandbox) as lease:
            assert await probe(lease, "create", planted) in NOTHING
        assert not planted.exists()
    finally:
        planted.unlink(missing_ok=True)


@some_modes
async def test_a_database_that_lies_elsewhere_is_out_of_reach_too(project: Project, sandbox: dict[str, Any]) -> None:
    database = project.folder / "journals" / "journal.db"
    database.parent.mkdir()
    project.configure(storage={"url": f"sqlite:///{database}"})
    async with project.server(sandbox) as lease:
        for path in (database, *(database.with_name(f"journal.{end}") for end in ("db-wal", "db-shm", "lock"))):
            assert path.exists()
            await assert_out_of_reach(lease, path)
        assert await probe(lease, "create", database.with_name("journal.db-journal")) in NOTHING


@some_modes
async def test_files_of_the_service_behind_a_link_are_out_of_reach_too(
    project: Project, sandbox: dict[str, Any]
) -> None:
    (project.folder / "real keys.txt").write_text(KEY_LINE)
    (project.folder / "linked").symlink_to(project.folder / "real keys.txt")
    (project.folder / "real data").mkdir()
    (project.folder / "linked data").symlink_to(project.folder / "real data")
    project.configure(auth={"keys_file": "linked"}, data_dir="linked data")
    async with project.server(sandbox) as lease:
        for change in ("read", "write", "create"):
            assert await probe(lease, change, project.folder / "linked") in NOTHING
        await assert_out_of_reach(lease, project.folder / "real keys.txt")
        for folder in ("linked data", "real data"):
            await assert_out_of_reach(lease, project.folder / folder / "agent-runtime.db")


@as_root
async def test_the_data_directory_is_hidden_where_it_is_mounted_once_more(project: Project) -> None:
    other = project.base / "mounted once more"
    other.mkdir()
    with mount(project.folder, other):
        async with project.server({}) as lease:
            for path in project.own_files:
                await assert_out_of_reach(lease, other / path.relative_to(project.folder))
            assert await probe(lease, "names", other / "data") == []


@contextmanager
def mount(folder: Path, point: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", folder, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)


@some_modes
async def test_naming_a_file_of_the_service_does_not_open_it(project: Project, sandbox: dict[str, Any]) -> None:
    database, names = project.data / "agent-runtime.db", {"read": [], "write": []} | sandbox
    for key in ("read", "write"):
        if names[key]:
            sandbox = sandbox | {key: [*names[key], "project/data", str(project.keys), "project/data/todo.db"]}
    env = {"DATABASE": str(database), "KEYS": str(project.keys)}
    args = [str(PROBE_SERVER)]
    async with project.server(sandbox, env=env, args=args) as lease:
        for path in project.own_files:
            if path != project.token:
                await assert_out_of_reach(lease, path)


# What stays visible of the data directory


@pytest.mark.parametrize("sandbox", [MODES["plain"], MODES["no network"]], ids=["plain", "no network"])
async def test_a_files_root_in_the_data_directory_stays_visible(project: Project, sandbox: dict[str, Any]) -> None:
    async with project.server(sandbox) as lease:
        note = project.data / "files" / "note.txt"
        assert await probe(lease, "read", note) == "for everybody"
        assert await probe(lease, "create", note.with_name("new.txt"))
        assert note.with_name("new.txt").exists()
        await assert_out_of_reach(lease, project.data / "files" / ".." / "todo.db")


@pytest.mark.parametrize("how", ["argument", "option", "variable", "read", "write", "cwd"])
async def test_a_folder_of_the_data_directory_that_an_entry_names_stays_visible(project: Project, how: str) -> None:
    own = project.data / "own"
    own.mkdir()
    (own / "mine.txt").write_text("mine")
    sandbox: dict[str, Any] = {}
    config: dict[str, Any] = {}
    match how:
        case "argument" | "option":
            word = "data/own" if how == "argument" else f"--root={own}"
            config = {"command": "/bin/sh", "args": ["-c", f"exec {sys.executable} {PROBE_SERVER}", word]}
        case "variable":
            config = {"env": {"ROOT": str(own)}}
        case "read":
            sandbox = {"read": [*MODES["read"]["read"][:-1], "project/data/own", "project/work"]}
            config = {"cwd": str(project.folder / "work")}
        case "write":
            sandbox = {"write": ["project/data/own"]}
        case "cwd":
            config = {"cwd": str(own)}
    async with project.server(sandbox, **config) as lease:
        assert await probe(lease, "read", own / "mine.txt") == "mine"
        assert await probe(lease, "create", own / "new.txt") == ("OSError" if how == "read" else 19)
        before = {path: path.read_bytes() for path in project.own_files if not path.name.endswith("-shm")}
        for path in project.own_files:
            assert await probe(lease, "read", path) in NOTHING, path
            await probe(lease, "write", path)
        assert {path: path.read_bytes() for path in before} == before


async def test_a_server_in_the_data_directory_itself_finds_it_empty(project: Project) -> None:
    async with project.server({}, cwd=str(project.data)) as lease:
        assert await probe(lease, "folder") == str(project.data)
        assert await probe(lease, "names", ".") == ["files"]
        await assert_out_of_reach(lease, "agent-runtime.db")


# Network and sockets


@contextmanager
def listen(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        try:
            yield server
        finally:
            if family == socket.AF_UNIX and not address.startswith("\0"):
                Path(address).unlink()


@without_network
async def test_a_server_without_network_reaches_no_socket_of_others(project: Project, sandbox: dict[str, Any]) -> None:
    name = f"probed-{os.getpid()}"
    folders = [Path(folder) for folder in ("/tmp", "/dev/shm", "/run") if os.access(folder, os.W_OK)]  # noqa: S108
    with ExitStack() as stack:
        port = stack.enter_context(listen(socket.AF_INET, ("127.0.0.1", 0))).getsockname()[1]
        stack.enter_context(listen(socket.AF_UNIX, f"\0{name}"))
        for folder in folders:
            stack.enter_context(listen(socket.AF_UNIX, str(folder / name)))
        async with project.server(sandbox) as lease:
            assert await probe(lease, "connect_port", port) == "ConnectionRefusedError"
            assert await probe(lease, "connect", f"@{name}") == "ConnectionRefusedError"
            for folder in (*folders, Path("/var/run")):
                assert await probe(lease, "connect", folder / name) == "FileNotFoundError"


async def test_a_server_with_network_still_reaches_the_sockets_of_this_machine(project: Project) -> None:
    name = f"probed-{os.getpid()}"
    with listen(socket.AF_UNIX, f"\0{name}"), listen(socket.AF_UNIX, f"/tmp/{name}"):  # noqa: S108
        async with project.server({}) as lease:
            assert await probe(lease, "connect", f"@{name}") == "connected"
            assert await probe(lease, "connect", f"/tmp/{name}") == "connected"  # noqa: S108


@without_network
async def test_without_network_the_changing_folders_hold_only_what_the_server_needs(
    project: Project, sandbox: dict[str, Any]
) -> None:
    async with project.server(sandbox) as lease:
        assert await probe(lease, "names", "/run") in ([], "FileNotFoundError")
        assert await probe(lease, "names", "/dev/shm") == []  # noqa: S108
        inside, place = project.base.is_relative_to("/tmp"), Path("/tmp")  # noqa: S108
        assert await probe(lease, "names", place) == ([project.base.relative_to(place).parts[0]] if inside else [])
        assert await probe(lease, "names", project.base) == ["project"]


# What a server may do


@some_modes
async def test_a_server_has_no_capability_and_can_get_none(project: Project, sandbox: dict[str, Any]) -> None:
    async with project.server(sandbox) as lease:
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert await probe(lease, "status", kind) == ["0000000000000000"], kind
        assert await probe(lease, "status", "NoNewPrivs") == ["1"]
        assert await probe(lease, "mount", project.folder) == "PermissionError"
        assert await probe(lease, "unmount", project.data) in ("PermissionError", "FileNotFoundError")
        assert await probe(lease, "new_namespace") == 1
        assert await probe(lease, "disks") == []
        for setting in ("/sys/class/net/lo/mtu", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
            assert await probe(lease, "open", setting) in NOTHING, setting


def namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


@some_modes
async def test_a_server_is_alone_in_its_namespaces(project: Project, sandbox: dict[str, Any]) -> None:
    async with project.server(sandbox) as lease:
        for kind in ("user", "pid", "mnt", "ipc"):
            assert await probe(lease, "namespace", kind) != namespace(kind), kind
        assert len(await probe(lease, "processes")) == 2  # bubblewrap's own, and the server
        assert await probe(lease, "session", 0) != 0


async def test_a_server_writes_where_its_entry_lets_it(project: Project) -> None:
    file = project.folder / "work" / "made.txt"
    for sandbox in (MODES["plain"], MODES["no network"], MODES["write"], MODES["read, write and no network"]):
        async with project.server(sandbox) as lease:
            assert await probe(lease, "create", file) == 19
        file.unlink()
    for sandbox in (MODES["read"], {"write": ["project/data/files"]}):
        async with project.server(sandbox) as lease:
            assert await probe(lease, "create", file) == "OSError"


async def test_the_more_specific_of_two_paths_counts(project: Project) -> None:
    file = project.folder / "work" / "made.txt"
    sandbox = {"write": ["project"], "read": [*MODES["read"]["read"], "project/work"]}
    async with project.server(sandbox) as lease:
        assert await probe(lease, "create", file) == "OSError"
        assert await probe(lease, "create", project.folder / "made.txt") == 19


async def test_a_path_that_is_a_link_is_found_under_both_names(project: Project) -> None:
    (project.base / "link").symlink_to(project.folder / "work")
    (project.folder / "work" / "note.txt").write_text("found")
    sandbox = {"read": [*MODES["read"]["read"][:-1], "link"]}
    async with project.server(sandbox, cwd=str(project.folder / "work")) as lease:
        assert await probe(lease, "read", project.base / "link" / "note.txt") == "found"
        assert await probe(lease, "read", project.folder / "work" / "note.txt") == "found"
        assert await probe(lease, "names", project.folder) == ["work"]


# What each machine has


SAID = "from agent_runtime.mcp_servers.sandbox import describe_level; print(describe_level())"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preparation", "level"),
    [
        ("true", "pid namespace (bubblewrap)"),
        ("echo 0 > /proc/sys/user/max_user_namespaces", "pid namespace (bubblewrap, without a user namespace)"),
        ("exec setpriv --bounding-set=-all --no-new-privs", "process group and parent-death signal (bubblewrap does"),
    ],
    ids=["user namespaces", "only as root", "neither"],
)
def test_what_a_machine_forbids_is_done_without(preparation: str, level: str) -> None:
    """The machine is a user namespace in which each of these can be forbidden."""
    then = " " if preparation.startswith("exec") else "; exec "
    script = f'{preparation}{then}"$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, SAID],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout.startswith(level), done


def test_what_must_be_confined_is_confined_like_all_others(project: Project) -> None:
    argv, cwd = (sys.executable,), project.folder
    plain, required = (confine(argv, Sandbox(mode=mode), cwd, cwd) for mode in ("auto", "required"))
    assert plain == required


@pytest.mark.slow
@as_root
def test_an_ordinary_user_is_confined_too() -> None:
    """Uses the system's Python, because only root may be able to read that of the tests."""
    python = "/usr/bin/python3"
    with TemporaryDirectory(prefix="project-", ignore_cleanup_errors=True) as name:
        project = Project(Path(name))
        script = project.base / "probe_server.py"
        script.write_bytes(PROBE_SERVER.read_bytes())
        for path in (project.base, *project.base.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        own = OwnFiles(project.data, roots=(project.data / "files",), files=(project.keys, project.config))

        def try_out(*words: str | Path) -> Any:
            confined = confine((python, str(script), *map(str, words)), Sandbox(), project.folder, project.base, own)
            return json.loads(subprocess.check_output(confined.argv, user=NOBODY, group=NOBODY, timeout=PATIENCE_S))

        assert try_out("names", project.data) == ["files"]
        assert try_out("read", project.data / "files" / "note.txt") == "for everybody"
        assert try_out("create", project.folder / "new.txt") == 19
        for path in (project.keys, project.config):
            assert try_out("read", path) == try_out("write", path) == "PermissionError"
            assert try_out("remove", path) == try_out("replace", path) == "OSError"
        assert try_out("rename", project.keys.parent, project.folder / "away") == "OSError"
        assert try_out("status", "CapEff") == ["0000000000000000"]
        assert try_out("new_namespace") == 1
