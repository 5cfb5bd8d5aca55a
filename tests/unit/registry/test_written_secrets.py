"""Warnings about secrets that a registry contains or passes on openly."""

from typing import Any

import pytest

from agent_runtime.domain.tools import HttpServer, StdioServer, ToolServer
from agent_runtime.registry.written_secrets import remember_written_secrets
from agent_runtime.text.redaction import Redactor

SECRET = "abcdefgh-12345"  # noqa: S105 - planted


def stdio(**config: Any) -> StdioServer:
    return StdioServer.model_validate({"id": "s", "type": "local_stdio", "config": {"command": "c", **config}})


def http(**config: Any) -> HttpServer:
    config = {"base_url": "https://mcp.example/mcp", **config}
    return HttpServer.model_validate({"id": "s", "type": "remote_http", "config": config})


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (stdio(env={"API_KEY": SECRET}), "config.env.API_KEY"),
        (stdio(env={"DATABASE_URL": f"postgres://me:{SECRET}@db/x"}), "config.env.DATABASE_URL"),
        (stdio(args=["--api-key", SECRET]), "config.args"),
        (stdio(args=[f"--token={SECRET}"]), "config.args"),
        (stdio(args=["--header", f"Authorization: Bearer {SECRET}"]), "config.args"),
        (http(headers={"Authorization": f"Bearer {SECRET}"}), "config.headers.Authorization"),
        (http(headers={"Cookie": f"a=b; session={SECRET}"}), "config.headers.Cookie"),
        (http(base_url=f"https://me:{SECRET}@mcp.example/mcp"), "config.base_url"),
        (http(base_url=f"https://mcp.example/mcp?api_key={SECRET}"), "config.base_url"),
    ],
    ids=[
        "variable",
        "password of a URL",
        "option",
        "option with =",
        "header option",
        "bearer",
        "cookie",
        "user",
        "query",
    ],
)
def test_a_secret_that_is_written_out_is_redacted_and_advised_against(entry: ToolServer, place: str) -> None:
    redactor = Redactor()
    (advice,) = remember_written_secrets([entry], redactor)
    assert advice.server_id == "s"
    assert advice.message.startswith(f"{place} contains a literal secret")
    assert "${env:NAME}" in advice.message
    assert SECRET not in advice.message
    assert redactor.redact(f"I was given {SECRET}.") == "I was given [redacted]."


@pytest.mark.parametrize(
    "entry",
    [
        stdio(env={"API_KEY": "${env:API_KEY}", "PATH": "/usr/bin", "EMPTY_TOKEN": "", "TOKENS": "4000"}),
        stdio(args=["-y", "some-package@1.2.3", "--port", "8000"]),
        http(headers={"Authorization": "Bearer ${env:TOKEN}", "Accept": "text/plain"}),
        http(base_url="https://me:${env:PASSWORD}@mcp.example/mcp?token=${file:/run/token}"),
    ],
)
def test_references_and_other_values_are_not_advised_against(entry: ToolServer) -> None:
    redactor = Redactor()
    assert remember_written_secrets([entry], redactor) == []
    text = "Bearer token me: some-package@1.2.3 4000. A sentence, /usr/bin; mcp.example/mcp"
    assert redactor.redact_message(text) == text


@pytest.mark.parametrize(
    ("word", "what"), [("${env:MY_TOKEN}", "the secret MY_TOKEN"), ("--token=${file:/run/t}", "a secret")]
)
def test_a_secret_among_the_arguments_of_a_command_is_advised_against(word: str, what: str) -> None:
    (advice,) = remember_written_secrets([stdio(args=[word])], Redactor())
    assert advice.message.startswith(f"config.args contains {what}, which every user of this machine can read")


def test_of_an_entry_that_is_not_enabled_secrets_are_redacted_and_nothing_is_said() -> None:
    redactor = Redactor()
    entry = stdio(env={"API_KEY": SECRET}).model_copy(update={"enabled": False})
    assert remember_written_secrets([entry], redactor) == []
    assert redactor.redact(SECRET) == "[redacted]"
