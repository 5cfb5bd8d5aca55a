"""Placeholders of other MCP clients in a registry, and the replacements that the messages name."""

from typing import Any

import pytest

from agent_runtime.config import convert_placeholders
from agent_runtime.domain.tools import HttpServer, StdioServer, ToolServer
from agent_runtime.registry.placeholders import advise_on_placeholders
from agent_runtime.registry.written_secrets import remember_written_secrets
from agent_runtime.text.redaction import Redactor


def stdio(**config: Any) -> StdioServer:
    return StdioServer.model_validate({"id": "s", "type": "local_stdio", "config": {"command": "c", **config}})


def http(**config: Any) -> HttpServer:
    config = {"base_url": "https://mcp.example/mcp", **config}
    return HttpServer.model_validate({"id": "s", "type": "remote_http", "config": config})


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (stdio(env={"API_KEY": "${TOKEN}"}), "config.env.API_KEY"),
        (stdio(args=["--key", "${TOKEN}"]), "config.args"),
        (stdio(command="${TOKEN}/bin/server"), "config.command"),
        (stdio(cwd="${TOKEN}/x"), "config.cwd"),
        (http(headers={"Authorization": "Bearer ${TOKEN}"}), "config.headers.Authorization"),
        (http(base_url="https://mcp.example/mcp?key=${TOKEN}"), "config.base_url"),
    ],
)
def test_the_spelling_of_other_clients_is_named_with_what_to_write(entry: ToolServer, place: str) -> None:
    (advice,) = advise_on_placeholders([entry])
    assert advice.server_id == "s"
    assert advice.message == (
        f"{place}: ${{TOKEN}} is not replaced, but passed on unchanged; "
        "only ${env:NAME} and ${file:/path} are replaced: write ${env:TOKEN}"
    )


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("${TOKEN:-none}", "${env:TOKEN}"),
        ("${TOKEN-none}", "${env:TOKEN}"),
        ("${ENV:TOKEN}", "${env:TOKEN}"),
        ("${input:my-token}", "${env:MY_TOKEN}"),
        ("${env.TOKEN}", "${env:TOKEN}"),
        ("{env:TOKEN}", "${env:TOKEN}"),
        ("${{ secrets.TOKEN }}", "${env:TOKEN}"),
        ("${workspaceFolder}", "."),
        ("${userHome}", "${env:HOME}"),
        ("${env:}", None),
        ("${}", None),
        ("${a b}", None),
        ("${1}", None),
    ],
)
def test_the_advice_is_what_an_import_writes(written: str, instead: str | None) -> None:
    (advice,) = advise_on_placeholders([stdio(env={"KEY": f"x{written}"})])
    assert advice.message.startswith(f"config.env.KEY: {written} is not replaced")
    assert advice.message.endswith(f": write {instead}" if instead else "are replaced")
    assert convert_placeholders(f"x{written}") == f"x{instead or written}"


@pytest.mark.parametrize("value", ["$TOKEN", "Bearer $TOKEN"])
def test_a_variable_after_a_dollar_sign_is_not_shown_for_it_may_be_a_password(value: str) -> None:
    (advice,) = advise_on_placeholders([http(headers={"Authorization": value})])
    assert advice.message.startswith("config.headers.Authorization: a variable written as $NAME is not")
    assert "TOKEN" not in advice.message


@pytest.mark.parametrize(
    "entry",
    [
        stdio(env={"A": "${env:TOKEN}", "B": "${file:/run/token}", "C": "a$b", "D": "$5", "E": "{x}", "F": "pa$WORD"}),
        stdio(command="/bin/sh", args=["-c", "exec server --home ${HOME} $TOKEN"]),
        http(headers={"Authorization": "Bearer ${env:TOKEN}"}),
        stdio(env={"A": "${TOKEN}"}).model_copy(update={"enabled": False}),
    ],
)
def test_nothing_is_said_of_other_texts_and_of_entries_that_are_not_enabled(entry: ToolServer) -> None:
    assert advise_on_placeholders([entry]) == []


def test_a_placeholder_is_no_secret_that_is_written_out() -> None:
    redactor = Redactor()
    entry = http(headers={"Authorization": "Bearer ${TOKEN}"})
    assert remember_written_secrets([entry], redactor) == []
    assert redactor.redact_message("write ${TOKEN}") == "write ${TOKEN}"


def test_a_secret_in_a_whole_command_line_is_redacted() -> None:
    redactor = Redactor()
    (advice,) = remember_written_secrets([stdio(command="server --token abcdefgh-12345")], redactor)
    assert advice.message.startswith("config.command contains a literal secret")
    assert redactor.redact_message("server --token abcdefgh-12345") == "server --token [redacted]"
