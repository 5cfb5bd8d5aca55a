"""Messages for typical mistakes of newcomers, and the documentation that they lead to."""

import json
import stat
from pathlib import Path

import pytest

from agent_runtime.config import load_settings
from agent_runtime.domain.errors import ConfigurationError
from command_line import Folder
from serving import Service

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("option", ["--data-dir", "--config", "--registry"])
def test_an_empty_path_is_refused_and_the_folder_stays_as_it_was(folder: Folder, option: str) -> None:
    folder.path.chmod(0o755)
    before = sorted(folder.path.iterdir())
    done = folder("serve", option, "")
    assert done.returncode == 2
    assert f"argument {option}: it is empty" in done.stderr
    assert sorted(folder.path.iterdir()) == before
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o755


def test_an_empty_path_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data_dir: ''", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"config\.yaml: data_dir: must name a path"):
        load_settings(file, environ={})


@pytest.mark.slow
def test_the_doctor_names_a_root_that_is_not_there(folder: Folder) -> None:
    folder.files.rmdir()
    findings = {finding["check"]: finding for finding in folder.json("doctor", code=1)["findings"]}
    assert findings["server filesystem"]["state"] == "fail"
    assert str(folder.files) in findings["server filesystem"]["detail"]


@pytest.mark.slow
def test_the_doctor_names_a_word_on_a_tool_that_the_server_does_not_have(folder: Folder) -> None:
    config = {"server": "calculator"}
    tools = {"ad": {"approval": "call"}, "add": {"effect": "read"}, "sub*": {"effect": "read"}}
    folder.write_registry({"id": "sums", "type": "builtin", "config": config, "tools": tools})
    findings = folder.json("doctor")["findings"]
    warnings = [finding for finding in findings if (finding["check"], finding["state"]) == ("server sums", "warn")]
    assert len(warnings) == 1
    assert warnings[0]["detail"].startswith("'ad' ")


@pytest.mark.slow
def test_the_doctor_names_a_denial_that_denies_nothing(folder: Folder) -> None:
    deny = [{"tool": "ad"}, {"tool": "add", "arguments": {"x.y": "1"}}, {"tool": "add", "arguments": {"a": "1"}}]
    folder.write_registry({"id": "sums", "type": "builtin", "config": {"server": "calculator"}, "deny": deny})
    denials = [{"server": "sum*"}, {"server": "sum"}]
    (folder.path / "config.yaml").write_text(json.dumps({"approval": {"deny": denials}}), encoding="utf-8")
    findings = folder.json("doctor")["findings"]
    warnings = [finding["detail"].partition(",")[0] for finding in findings if "deny[" in finding["detail"]]
    assert warnings == [
        "approval.deny[1]: 'sum' matches no server",
        "deny[0]: 'ad' matches none of its tools",
        "deny[1]: none of the tools that it matches is known to take x.y",
    ]


@pytest.mark.slow
def test_the_title_of_a_narrow_table_stays_on_one_line(folder: Folder) -> None:
    folder.env["COLUMNS"] = "200"
    done = folder("run", "Add 15 and 27")
    assert ", revision 1: Add 15 and 27\n" in done.stderr


@pytest.mark.slow
def test_todos_are_nobody_elses_business(folder: Folder) -> None:
    folder.write_registry({"id": "todo", "type": "builtin", "config": {"server": "todo"}})
    done = folder("run", "Add a todo to buy milk", "--yes")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((folder.path / "data" / "todo.db").stat().st_mode) == 0o600


def test_a_mistyped_filter_is_refused_by_name(service: Service) -> None:
    response = service.client.get("/v1/tasks?staus=failed")
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["staus"]


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "resolve"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"{", JSON), (b"x" * 1048577, JSON), (b"{}", {"Content-Type": "text/plain"}), (b'{"x": 1}', JSON)],
)
def test_every_refusal_of_a_decision_is_documented(
    service: Service, verb: str, body: bytes, headers: dict[str, str]
) -> None:
    refused = service.client.post(f"/v1/tasks/{service.submit()}/{verb}", content=body, headers=headers)
    documented = service.client.get("/openapi.json").json()["paths"][f"/v1/tasks/{{task_id}}/{verb}"]["post"]
    assert str(refused.status_code) in documented["responses"]
    assert refused.headers["content-type"] == "application/problem+json"
