"""`agent-runtime serve`, and commands that find the running service."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx2
import pytest

from agent_runtime.api.keys import new_key
from agent_runtime.mcp_servers.sandbox import find_bubblewrap_problem
from agent_runtime.storage.owner import find_owner
from command_line import AGENT_RUNTIME, Folder, ledger_call
from odd_servers import Script
from waiting import eventually_sync


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.slow
def test_serving_is_the_default_and_ends_with_exit_code_0(folder: Folder) -> None:
    with folder.serve("--data-dir", "here") as service:
        owner = find_owner(folder.path / "here", folder.path / "here" / "agent-runtime.db")
        assert owner
        assert (owner.pid, owner.url) == (service.process.pid, service.url)
        assert stat.S_IMODE((folder.path / "here").stat().st_mode) == 0o700
    assert service.process.returncode == 0
    assert '"stopped"' in service.log
    assert find_owner(folder.path / "here", folder.path / "here" / "agent-runtime.db") is None


def test_ctrl_c_ends_the_service_with_exit_code_0(folder: Folder) -> None:
    with folder.serve() as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=30) == 0
    assert "Traceback" not in service.log


@pytest.mark.slow
def test_a_second_service_is_refused_and_told_who_serves(folder: Folder) -> None:
    with folder.serve() as service:
        refused = folder("serve", "--port", "0")
    assert refused.returncode == 2
    assert service.url in refused.stderr
    assert str(service.process.pid) in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
def test_commands_find_the_service_that_owns_the_folder(folder: Folder) -> None:
    with folder.serve() as service:
        done = folder("run", "Add 15 and 27", "--yes")
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        task_id = folder.propose_task("Add 1 and 2")
        approved = folder("approve", task_id)
        assert approved.returncode == 0
        assert f"agent_runtime watch {task_id}" in approved.stderr
        watched = folder("watch", task_id)
        assert (watched.returncode, watched.stdout) == (0, "3\n")
        assert service.process.poll() is None
        rejected = folder.json("reject", folder.propose_task())
        assert rejected["status"] == "rejected"
        assert [task["status"] for task in folder.json("tasks", "--limit", "2")["tasks"]] == ["rejected", "completed"]
        assert [task["status"] for task in folder.json("tasks", "--status", "completed")["tasks"]] == ["completed"] * 2


@pytest.mark.slow
def test_a_service_is_named_by_its_url_from_anywhere(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = Folder(tmp_path_factory.mktemp("elsewhere"))
    with folder.serve() as service:
        done = elsewhere("run", "Add 15 and 27", "--yes", "--server", service.url)
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        waiting = elsewhere("run", "Add 15 and 27", "--server", service.url)
        assert f"--server {service.url}" in waiting.stderr
    assert not (elsewhere.path / "data").exists()


@pytest.mark.slow
def test_cancelling_waits_until_it_is_settled(folder: Folder) -> None:
    folder.add_ledger(delay_s=30)
    with folder.serve() as service:
        task_id = service.submit(ledger_call("count"), approve=True)
        service.follow_until(task_id, "tool.called")
        cancelled = folder.json("cancel", task_id, "--reason", "too slow")
    assert cancelled["status"] == "cancelled"


@pytest.mark.slow
def test_a_task_that_is_watched_survives_a_restart_of_the_service(folder: Folder) -> None:
    folder.add_ledger(delay_s=2)
    with folder.serve() as service:
        task_id = service.submit(ledger_call("look"), approve=True)
        service.follow_until(task_id, "tool.called")
        watching = subprocess.Popen(
            [*AGENT_RUNTIME, "watch", task_id],
            cwd=folder.path,
            env=folder.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stderr
        said = [watching.stderr.readline()]
        service.process.kill()
        service.process.wait(timeout=30)
    with folder.serve():
        printed, rest = watching.communicate(timeout=30)
    said += rest.splitlines()
    assert (watching.returncode, printed) == (0, "counted one\n"), said
    assert sum("Submitted" in line for line in said) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["show", "task_0"], 1, "There is no task 'task_0'"),
        (["show", "../../etc"], 1, "There is no task"),
        (["tasks", "--status", "sleeping"], 2, "choose from"),
        (["run", "  ", "--yes"], 1, "prompt is empty"),
        (["tasks", "--server", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9 does not answer: Connection refused"),
        (["serve", "--port", "99999"], 2, "server.port"),
        (["tasks", "--config", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "Add 1 and 2", "--registry", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["rnu", "Add 1 and 2"], 2, "invalid choice"),
        (["resolve", "task_0", "--step", "s1", "--as", "done", "--output", "{"], 2, "is not JSON"),
        (["tasks", "--server", "localhost"], 2, "is not a URL"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(folder: Folder, words: list[str], code: int, what: str) -> None:
    done = folder(*words)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert what in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_in_use_is_named(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Folder(tmp_path_factory.mktemp("other"))
    with folder.serve() as service:
        port = service.url.rpartition(":")[2]
        refused = other("serve", "--port", port)
    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr


@pytest.mark.slow
def test_the_doctor_finds_what_works_and_what_does_not(folder: Folder) -> None:
    healthy = folder.json("doctor")["findings"]
    states = {finding["check"]: finding["state"] for finding in healthy}
    assert states["store"] == states["registry"] == states["server filesystem"] == states["model"] == "ok"
    folder.write_registry({"id": "gone", "type": "local_stdio", "config": {"command": "npx", "args": ["-y", "x"]}})
    folder.env["PATH"] = "/nowhere"
    sick = folder("doctor")
    assert sick.returncode == 1
    assert "fail" in sick.stdout
    assert "no exact version" in sick.stdout
    with folder.serve() as service:
        findings = folder.json("doctor", code=1)["findings"]
    assert any(service.url in finding["detail"] for finding in findings if finding["check"] == "store")


@pytest.mark.slow
def test_the_first_task_of_a_service_imports_nothing(folder: Folder) -> None:
    folder.add_ledger(0)
    folder.env["PYTHONPROFILEIMPORTTIME"] = "1"
    plan = ledger_call("look")
    plan["steps"].append({**plan["steps"][0], "id": "s2", "server": "calculator", "tool": "evaluate"})
    plan["steps"][1]["arguments"] = {"expression": "2 + 3"}
    with folder.serve() as service:

        def has_listed() -> bool:
            servers = httpx2.get(f"{service.url}/v1/tools/status").json()
            return all(server["connected"] for server in servers if server["enabled"])

        eventually_sync(has_listed)
        httpx2.get(f"{service.url}/v1/tasks", headers={"Origin": "https://other.example"})  # to mark the log
        service.follow_until(service.submit(plan, approve=True), "task.completed")
    start, _, task = service.log.partition('"origin_refused"')
    assert {"mcp", "agent_runtime.builtin.calculator"} <= set(imports_in(start))
    assert imports_in(task.partition('"run_ended"')[0]) == []


def imports_in(log: str) -> list[str]:
    """Return the modules that Python names for PYTHONPROFILEIMPORTTIME."""
    return [line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")]


def test_the_doctor_tells_each_finding_before_a_slow_server_has_answered(folder: Folder) -> None:
    waiting = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    config = {"command": sys.executable, "args": ["-S", "-E", "-c", waiting], "cwd": str(folder.path)}
    folder.write_registry({"id": "slow", "type": "local_stdio", "config": config})
    command = [*AGENT_RUNTIME, "doctor"]
    with subprocess.Popen(command, cwd=folder.path, env=folder.env, stdout=subprocess.PIPE, text=True) as doctor:
        assert doctor.stdout
        told = list(iter_until(doctor.stdout, "server filesystem"))
        assert "config" in told[0]
        assert not [line for line in told if "server slow" in line]
        (folder.path / "go").touch()
        rest = doctor.stdout.read()
    assert "server slow" in rest
    assert "did not start" not in rest, "its time was up before anything was told"


def test_a_server_that_does_not_answer_is_told_from_one_that_was_not_asked(folder: Folder) -> None:
    waiting = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    config = {"command": sys.executable, "args": ["-S", "-E", "-c", waiting], "cwd": str(folder.path)}
    folder.write_registry({"id": "slow", "type": "local_stdio", "config": config})
    with folder.serve() as service:
        httpx2.post(f"{service.url}/v1/tasks", json={"prompt": "Add 15 and 27"}).raise_for_status()

        def detail() -> str:
            servers = {server["id"]: server for server in httpx2.get(f"{service.url}/v1/tools/status").json()}
            return str(servers["slow"]["detail"])

        eventually_sync(lambda: detail() == "it was asked, and has not answered yet")
        (folder.path / "go").touch()


def iter_until(lines: Iterable[str], text: str) -> Iterator[str]:
    """Yield the lines up to the one with this text. The time limit of the test bounds the wait."""
    for line in lines:
        yield line
        if text in line:
            return
    raise AssertionError(f"there was no line with {text!r}")


def test_the_doctor_ends_in_silence_when_nobody_reads_on(folder: Folder) -> None:
    command = [*AGENT_RUNTIME, "doctor"]
    with subprocess.Popen(
        command, cwd=folder.path, env=folder.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as doctor:
        assert doctor.stdout
        assert list(iter_until(doctor.stdout, "registry"))
        doctor.stdout.close()
        assert (doctor.wait(30), doctor.stderr.read() if doctor.stderr else None) == (1, "")


@pytest.mark.slow
def test_the_doctor_tries_to_tell_callers_apart_and_names_what_hides_them(folder: Folder) -> None:
    folder.write_registry({"id": "boxed", "type": "local_stdio", "config": {"command": "/usr/bin/podman"}})
    findings = {finding["check"]: finding for finding in folder.json("doctor", code=1)["findings"]}
    assert findings["callers"]["state"] == "ok"
    for words in ("starts are refused", "a proxy", "a published port", "use keys"):
        assert words in findings["callers"]["detail"]
    assert findings["callers of boxed"]["state"] == "warn"
    folder.env["AGENT_RUNTIME_AUTH__KEYS"] = new_key("alice", ["admin"])[1].line
    with_keys = folder.json("doctor", code=1)["findings"]
    assert not [finding for finding in with_keys if finding["check"].startswith("callers")]


@pytest.mark.slow
def test_the_doctor_counts_one_tool_as_one(folder: Folder) -> None:
    tool = {"name": "only", "inputSchema": {"type": "object"}}
    (folder.path / "tools.json").write_text(json.dumps([tool]), encoding="utf-8")
    (folder.path / "hang.txt").write_text("", encoding="utf-8")
    script = Path(__file__).parents[1] / "servers" / "shifty_server.py"
    config = {"command": sys.executable, "args": [str(script)], "env": {"HOUSE": str(folder.path)}}
    folder.write_registry({"id": "one", "type": "local_stdio", "config": config})
    details = {finding["check"]: finding["detail"] for finding in folder.json("doctor")["findings"]}
    assert details["server one"] == "local_stdio, 1 tool"
    assert details["server filesystem"] == "builtin, 11 tools"


@pytest.mark.slow
def test_the_doctor_warns_of_tools_that_cannot_be_used_and_of_spellings_of_other_clients(folder: Folder) -> None:
    unusable = {"type": "object", "properties": {"a": {"type": "strng"}}}
    script = Script.of_tools(
        {"name": "fat", "description": "x" * 70_000},
        {"name": "odd", "inputSchema": 5},
        {"name": "bad", "inputSchema": unusable},
    )
    entry = script.over_stdio(folder.path).model_dump(mode="json")
    entry["config"]["env"] = {"API_KEY": "${TOKEN}"}
    folder.write_registry(entry)
    findings = [finding for finding in folder.json("doctor")["findings"] if finding["check"] == "server remote"]
    assert {finding["state"] for finding in findings} == {"ok", "warn"}
    details = "\n".join(finding["detail"] for finding in findings)
    assert "local_stdio, 1 tool\n" in details
    assert 'its tool "fat" cannot be used: ' in details
    assert 'its tool "odd" cannot be used: ' in details
    assert 'its tool "bad" cannot be used: ' in details
    assert "config.env.API_KEY: ${TOKEN} is not replaced" in details


@pytest.mark.slow
def test_the_doctor_says_for_each_server_what_it_can_reach(folder: Folder) -> None:
    config = {"command": "true"}
    folder.write_registry(
        {"id": "plain", "type": "local_stdio", "config": config},
        {"id": "off", "type": "local_stdio", "config": config, "sandbox": {"mode": "off"}},
        {"id": "closed", "type": "local_stdio", "config": config, "sandbox": {"network": False, "read": ["files"]}},
        {"id": "remote", "type": "remote_http", "config": {"base_url": "http://127.0.0.1:9/"}},
    )
    findings = folder.json("doctor", code=1)["findings"]
    reach = {finding["check"]: finding["detail"] for finding in findings if finding["check"].startswith("reach of ")}
    assert "all that this user can, also the service's own files" in reach["reach of off"]
    assert "nothing on this machine" in reach["reach of remote"]
    assert str(folder.path) in reach["reach of filesystem"]
    if find_bubblewrap_problem() is None:
        assert "all files of this user but the service's own" in reach["reach of plain"]
        assert "no network; reads files and the system's programs; writes nothing" in reach["reach of closed"]
    else:
        assert reach["reach of plain"] == reach["reach of off"]
        assert "it does not start" in reach["reach of closed"]


@pytest.mark.slow
def test_the_doctor_names_a_broken_configuration(folder: Folder) -> None:
    (folder.path / "config.yaml").write_text("serverr: {port: 1}", encoding="utf-8")
    done = folder("doctor")
    assert done.returncode == 1
    assert "serverr" in done.stdout
