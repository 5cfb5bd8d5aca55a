"""The way to PostgreSQL over TLS, as libpq has it: what the URL asks for is what happens."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote

import pytest

from agent_runtime.config import load_settings
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import TaskStore
from agent_runtime.storage.opening import open_store
from certificates import make_certificate, with_openssl
from journals import task_submitted
from postgres_server import PostgresServer, TlsProxy

pytestmark = with_openssl


def make_url(postgres_url: str, port: int, host: str = "127.0.0.1", **parameters: str) -> str:
    """Return a URL of the same schema, over TCP."""
    options = postgres_url.partition("&")[2]
    more = "".join(f"&{name}={quote(value)}" for name, value in parameters.items())
    return f"postgresql://postgres@{host}:{port}/postgres?{options}{more}"


async def append_and_hear_of_it(store: TaskStore) -> None:
    async with aclosing(await store.subscribe(None, idle_s=20)) as pages:
        await store.append(Task("t"), [task_submitted()])
        async for page in pages:
            if page:
                return


async def test_everything_goes_over_tls_where_the_url_asks_for_it(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    certificate, tls = await make_certificate(tmp_path, "db.example")
    async with asyncio.timeout(40), TlsProxy(postgres_server, tls) as proxy:
        url = make_url(postgres_url, proxy.port, sslmode="verify-full", sslrootcert=str(certificate))
        settings = load_settings(environ={"AGENT_RUNTIME_STORAGE__URL": url}).storage
        async with open_store(settings) as store:
            await append_and_hear_of_it(store)
        assert proxy.encrypted >= 2, "the writer and the listener"


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("signed by another", "certificate verify failed"),
        ("another host", "does not match host name"),
        ("no TLS", "SSL was required"),
        ("no file", r"root certificate file .* does not exist"),
        ("odd file", "could not read root certificate file"),
    ],
)
async def test_a_server_that_cannot_prove_who_it_is_gets_no_word(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path, case: str, why: str
) -> None:
    certificate, tls = await make_certificate(tmp_path, "db.example")
    (tmp_path / "other").mkdir()
    other, _ = await make_certificate(tmp_path / "other", "db.example")
    (tmp_path / "odd").write_text("no certificate", encoding="utf-8")
    trusted = {"signed by another": other, "no file": tmp_path / "none", "odd file": tmp_path / "odd"}
    host = "localhost" if case == "another host" else "127.0.0.1"
    async with asyncio.timeout(40), TlsProxy(postgres_server, None if case == "no TLS" else tls) as proxy:
        root = str(trusted.get(case, certificate))
        url = make_url(postgres_url, proxy.port, host, sslmode="verify-full", sslrootcert=root)
        with pytest.raises(ConfigurationError, match=f"{why}.*See storage.url"):
            async with open_store(load_settings(environ={"AGENT_RUNTIME_STORAGE__URL": url}).storage):
                pass
