"""The identity of a server in plans: every part of its entry, with resolved folders and without secrets."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.builtin.servers import SERVERS, place_of
from agent_runtime.config import Secrets
from agent_runtime.registry.file import load_registry
from agent_runtime.registry.resolved import EntryResolver, ResolvedEntry, ShownValues

KEY = b"key"


def stdio(cwd: str | None = None, env: dict[str, str] | None = None, args: list[str] | None = None, **more: Any) -> Any:
    config = {"command": "node", "args": args or ["server.js"], "env": env or {}, "cwd": cwd}
    return {"id": "ops", "type": "local_stdio", "config": config, **more}


def http(base_url: str = "https://x.example/mcp", headers: dict[str, str] | None = None, **more: Any) -> Any:
    return {"id": "ops", "type": "remote_http", "config": {"base_url": base_url, "headers": headers or {}}, **more}


def builtin(server: str = "filesystem", root: str | None = None, **more: Any) -> Any:
    return {"id": "ops", "type": "builtin", "config": {"server": server, "root": root}, **more}


def resolve_entry(
    folder: Path, entry: dict[str, Any], *, key: bytes = KEY, environ: dict[str, str] | None = None, data: str = "data"
) -> ResolvedEntry:
    file = folder / "tool_registry.yaml"
    file.write_text(yaml.safe_dump({"tool_registry": [entry]}), encoding="utf-8")
    place = partial(place_of, base_dir=folder, data_dir=folder / data)
    resolver = EntryResolver(folder, place, Secrets(environ=environ or {}), ShownValues(key))
    (found,) = resolver.resolve(load_registry(file, SERVERS))
    return found


CHANGES = {
    "type": (stdio(), http()),
    "command": (stdio(), {**stdio(), "config": {**stdio()["config"], "command": "deno"}}),
    "argument": (stdio(), stdio(args=["other.js"])),
    "folder": (stdio("a"), stdio("b")),
    "environment": (stdio(env={"TARGET": "staging"}), stdio(env={"TARGET": "production"})),
    "name in the environment": (stdio(env={"A": "x"}), stdio(env={"B": "x"})),
    "reference": (stdio(env={"TOKEN": "${env:A}"}), stdio(env={"TOKEN": "${env:B}"})),
    "literal token": (stdio(env={"TOKEN": "one"}), stdio(env={"TOKEN": "two"})),
    "token in an argument": (stdio(args=["--token", "one"]), stdio(args=["--token", "two"])),
    "sandbox mode": (stdio(), stdio(sandbox={"mode": "off"})),
    "sandbox network": (stdio(sandbox={"network": False}), stdio(sandbox={"network": True})),
    "sandbox read": (stdio(sandbox={"read": ["a"]}), stdio(sandbox={"read": ["a", "b"]})),
    "sandbox write": (stdio(), stdio(sandbox={"write": ["a"]})),
    "scope": (stdio(), stdio(scope="shared")),
    "trust": (stdio(), stdio(trust="annotations")),
    "url": (http(), http("https://y.example/mcp")),
    "user of the url": (http("https://a:one@x.example/"), http("https://a:two@x.example/")),
    "query of the url": (http("https://x.example/?k=one"), http("https://x.example/?k=two")),
    "header": (http(headers={"X-Team": "a"}), http(headers={"X-Team": "b"})),
    "literal header": (http(headers={"Authorization": "Bearer a"}), http(headers={"Authorization": "Bearer b"})),
    "built-in": (builtin("calculator"), builtin("text")),
    "root": (builtin(root="a"), builtin(root="b")),
}
NO_CHANGES = {
    "name": (stdio(), stdio(name="Operations")),
    "policy": (stdio(), stdio(tools={"*": {"effect": "read"}})),
    "time-out": (stdio(), stdio(client_session_timeout_seconds=5)),
    "enabled": (stdio(), stdio(enabled=False)),
    "folder spelled otherwise": (stdio("a"), stdio("./b/../a")),
    "root spelled otherwise": (builtin(), builtin(root="./sample_data")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_server_has_another_identity(tmp_path: Path, change: str) -> None:
    before, after = (resolve_entry(tmp_path, entry).identity.digest for entry in CHANGES[change])
    assert before != after


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_does_not_change_the_server_does_not_change_its_identity(tmp_path: Path, change: str) -> None:
    before, after = (resolve_entry(tmp_path, entry).identity.digest for entry in NO_CHANGES[change])
    assert before == after


def test_an_approver_is_told_every_fact_that_tells_one_server_from_another(tmp_path: Path) -> None:
    sandbox = {"mode": "auto", "network": True, "read": [], "write": []}
    process = {"command": "node", "args": ["server.js"], "cwd": str(tmp_path), "env": {}, "sandbox": sandbox}
    told = [dict(resolve_entry(tmp_path, entry).identity.facts) for entry in (stdio(), http(), builtin(root="a"))]
    assert told == [
        {"type": "local_stdio", **process, "scope": "task", "trust": "none"},
        {
            "type": "remote_http",
            "base_url": "https://x.example/mcp",
            "headers": {},
            "scope": "shared",
            "trust": "none",
        },
        {
            "type": "builtin",
            "server": "filesystem",
            "root": str(tmp_path / "a"),
            "scope": "shared",
            "trust": "annotations",
        },
    ]


def test_a_link_in_place_of_the_folder_is_another_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    found = []
    for target in ("a", "b"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        server = resolve_entry(tmp_path, stdio("current"))
        files = resolve_entry(tmp_path, builtin(root="current"))
        assert server.server.model_dump()["config"]["cwd"] == server.identity.facts["cwd"] == str(tmp_path / target)
        assert str(files.place) == files.identity.facts["root"] == str(tmp_path / target)
        found += [server.identity.digest, files.identity.digest]
    assert len(set(found)) == 4


def test_the_todo_server_works_on_a_file_of_the_data_directory(tmp_path: Path) -> None:
    one, other = (resolve_entry(tmp_path, builtin("todo"), data=data) for data in ("a", "b"))
    assert one.place == tmp_path / "a" / "todo.db"
    assert one.identity.digest != other.identity.digest
    assert resolve_entry(tmp_path, builtin("calculator")).place is None


SECRET = "hunter2-hunter2"  # noqa: S105 - an example
HOLDERS = {
    "environment": stdio(env={"DB_PASSWORD": SECRET, "TARGET": "staging"}),
    "with a scheme": http(headers={"Authorization": f"Bearer {SECRET}"}),
    "beside a reference": http(headers={"Cookie": f"${{env:A}}{SECRET}"}),
    "user of a url": http(f"https://me:{SECRET}@x.example/mcp"),
    "query of a url": http(f"https://x.example/mcp?key={SECRET}"),
    "url in the environment": stdio(env={"DATABASE": f"postgres://me:{SECRET}@db/x"}),
    "argument": stdio(args=["--api-key", SECRET, "serve"]),
    "argument with its name": stdio(args=[f"--password={SECRET}"]),
    "argument that is a header": stdio(args=["--header", f"Authorization: Bearer {SECRET}"]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_literal_secret_is_not_shown_and_only_who_has_the_key_can_try_guesses(tmp_path: Path, holder: str) -> None:
    one = resolve_entry(tmp_path, HOLDERS[holder]).identity
    assert SECRET not in str(one.facts)
    assert "hidden:" in str(one.facts)
    assert resolve_entry(tmp_path, HOLDERS[holder]).identity == one
    assert resolve_entry(tmp_path, HOLDERS[holder], key=b"other").identity.digest != one.digest


def test_what_names_a_secret_is_shown_as_it_is_written(tmp_path: Path) -> None:
    entry = http(headers={"Authorization": "Bearer ${env:TOKEN}", "X-Api-Key": "${file:/run/secrets/x}"})
    assert resolve_entry(tmp_path, entry).identity.facts["headers"] == entry["config"]["headers"]


def test_a_folder_that_a_secret_is_part_of_is_resolved_and_not_shown(tmp_path: Path) -> None:
    one, other = (resolve_entry(tmp_path, stdio("${env:PLACE}/a"), environ={"PLACE": place}) for place in ("x", "y"))
    assert one.server.model_dump()["config"]["cwd"] == str(tmp_path / "x" / "a")
    assert str(one.identity.facts["cwd"]).startswith("${env:PLACE}/a (hidden:")
    assert one.identity.digest != other.identity.digest


def test_a_folder_that_cannot_be_resolved_keeps_its_server_from_being_started_and_no_other(tmp_path: Path) -> None:
    found = resolve_entry(tmp_path, stdio("${env:NOWHERE}"))
    assert found.problem == "The environment variable NOWHERE is not set."
    assert resolve_entry(tmp_path, stdio()).problem is None


def python(**config: Any) -> Any:
    return {"id": "ops", "type": "python", "config": {"object": "own_tools:tools", **config}}


def test_the_file_of_python_code_is_part_of_what_the_server_is(tmp_path: Path) -> None:
    file = tmp_path / "own_tools.py"
    file.write_text("tools = []", encoding="utf-8")
    before = resolve_entry(tmp_path, python())
    assert before.problem is None
    source = before.identity.facts["source"]
    assert before.identity.facts == {
        "type": "python",
        "object": "own_tools:tools",
        "folder": str(tmp_path),
        "source": source,
        "scope": "shared",
        "trust": "none",
    }
    file.write_text("tools = [1]", encoding="utf-8")
    assert resolve_entry(tmp_path, python()).identity.digest != before.identity.digest
    assert "is another one than config.source names" in (resolve_entry(tmp_path, python(source=source)).problem or "")


@pytest.mark.parametrize("name", ["no_such_module", "own_package.no_such_part", "sys"])
def test_python_code_that_is_not_found_is_a_problem_of_its_entry_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    found = resolve_entry(tmp_path, python(object=name))
    assert f"there is no module {name}" in (found.problem or "")
