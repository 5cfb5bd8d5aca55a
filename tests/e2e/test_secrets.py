"""Secrets of an operator do not leak from their places, and refused calls change nothing (G12, G14).

The service is a separate process with its own log, environment and command line.
"""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import yaml

from agent_runtime.api.keys import new_key
from agent_runtime.text.redaction import REDACTED
from command_line import AGENT_RUNTIME, LEDGER_SERVER, PATIENCE_S, Folder
from serving import free_port

TELLING_SERVER = Path(__file__).parent.parent / "servers" / "telling_server.py"


class RunningService:
    """A service process with its output."""

    def __init__(self, folder: Folder) -> None:
        self.url = ""
        self.lines: list[str] = []
        self._started = threading.Event()
        self.process = subprocess.Popen(
            [*AGENT_RUNTIME, "serve", "--port", "0"],
            cwd=folder.path,
            env=folder.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if '"event": "started"' in line:
                self.url = json.loads(line)["url"]
                self._started.set()
        self._started.set()

    def wait_for_start(self) -> None:
        assert self._started.wait(PATIENCE_S)
        assert self.url, "".join(self.lines)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE_S)
            if self.process.stdout:
                self.process.stdout.close()


@contextmanager
def run_service(folder: Folder) -> Iterator[RunningService]:
    service = RunningService(folder)
    try:
        service.wait_for_start()
        yield service
    finally:
        service.stop()


class EchoingServer(BaseHTTPRequestHandler):
    """An MCP server over HTTP whose tool `hear` returns the path and the headers of the request."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        heard = f"{self.path}\n{self.headers}"
        self.server.heard.append(heard)  # type: ignore[attr-defined]
        match request["method"]:
            case "initialize":
                version = request["params"]["protocolVersion"]
                info = {"name": "hearsay", "version": "1"}
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                result = {"tools": [{"name": "hear", "description": heard, "inputSchema": {"type": "object"}}]}
            case "tools/call":
                result = {"content": [{"type": "text", "text": heard}]}
            case _:
                self._answer(200 if "id" in request else 202, request, error={"code": -32601, "message": heard})
                return
        self._answer(200, request, result=result)

    def _answer(self, status: int, request: Any, **what: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": request.get("id"), **what}).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(405)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hearsay() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EchoingServer) as server:
        server.heard = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(PATIENCE_S)


PLACES = (
    "key of the model",
    "address of the model",
    "variable that nobody reads",
    "variable for a server",
    "argument for a server",
    "header for a server",
    "address of a server",
    "address of a server that is not there",
    "variable that is written out",
    "argument that is written out",
    "header that is written out",
    "variable that a server repeats",
    "cookie that a server repeats",
)


class Planted:
    """One secret per place, the folder of a service that uses them, and a search for leaks."""

    def __init__(self, folder: Folder, hearsay_port: int) -> None:
        self.folder = folder
        self.cores = {place: uuid4().hex for place in PLACES}
        """The part of a secret to search for, which no way of quoting changes."""
        self.key, made = new_key("tester", ["admin"])
        secret = folder.path / "secret.txt"
        secret.write_text(f"{self._awkward('argument for a server')}\n", encoding="utf-8")
        folder.env |= {
            "AWS_SECRET_ACCESS_KEY": self.cores["variable that nobody reads"],
            "MODEL_PASSWORD": self.cores["address of the model"],
            "GIVEN_TOKEN": self._awkward("variable for a server"),
            "HEARSAY_TOKEN": self.cores["header for a server"],
            "HEARSAY_PASSWORD": self.cores["address of a server"],
            "NOWHERE_PASSWORD": self.cores["address of a server that is not there"],
        }
        config = {
            "openai": {
                "api_key": f"sk-{self.cores['key of the model']}",
                "base_url": "http://u:${env:MODEL_PASSWORD}@h",
            },
            "auth": {"keys": [made.line]},
            "log": {"level": "debug"},
        }
        (folder.path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        folder.write_registry(*self._servers(secret, hearsay_port))
        self.inputs = {secret, folder.path / "config.yaml", folder.path / "tool_registry.yaml"}

    def _awkward(self, place: str) -> str:
        return f'the "\\ caf\u00e9 {self.cores[place]}'

    def _servers(self, secret: Path, hearsay_port: int) -> Iterator[dict[str, Any]]:
        python = [sys.executable, "-S", "-E"]
        telling = {
            "given": (
                {"TOKEN": "${env:GIVEN_TOKEN}", "API_KEY": self.cores["variable that a server repeats"]},
                ["--token", f"${{file:{secret}}}"],
            ),
            "bare": ({}, ["--no-token"]),
        }
        for name, (env, words) in telling.items():
            args = [*python[1:], str(TELLING_SERVER), str(self.told_by(name)), *words]
            yield {"id": name, "type": "local_stdio", "config": {"command": python[0], "args": args, "env": env}}
        env = {"LEDGER": str(self.folder.ledger), "TOKEN": self.cores["variable that is written out"]}
        args = [*python[1:], str(LEDGER_SERVER), "--token", self.cores["argument that is written out"]]
        config = {"command": python[0], "args": args, "env": env}
        yield {"id": "ledger", "type": "local_stdio", "scope": "shared", "config": config}
        unset = {"command": python[0], "env": {"TOKEN": "${env:GIVEN_TOKEN}${env:THERE_IS_NONE}"}}
        yield {"id": "unset", "type": "local_stdio", "config": unset}
        url = f"http://127.0.0.1:{hearsay_port}/mcp?password=${{env:HEARSAY_PASSWORD}}"
        headers = {"X-Token": "Bearer ${env:HEARSAY_TOKEN}"}
        headers["Cookie"] = f"theme=dark; session={self.cores['cookie that a server repeats']}"
        yield {"id": "hearsay", "type": "remote_http", "config": {"base_url": url, "headers": headers}}
        url = f"http://u:${{env:NOWHERE_PASSWORD}}@127.0.0.1:{free_port()}/${{env:NOWHERE_PASSWORD}}"
        headers = {"X-Token": self.cores["header that is written out"]}
        yield {"id": "nowhere", "type": "remote_http", "config": {"base_url": url, "headers": headers}}

    def told_by(self, server: str) -> Path:
        """Return the file to which a server has written its environment and arguments."""
        return self.folder.path / f"told-by-{server}"

    def found_in(self, text: str) -> set[str]:
        return {place for place, core in self.cores.items() if core in text}

    def client(self, service: RunningService) -> httpx2.Client:
        return httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=PATIENCE_S)


class ClientRecord:
    """Everything that a client has received."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self.texts: list[str] = []

    def __call__(self, method: str, path: str, status: int = 200, **more: Any) -> httpx2.Response:
        response = self._client.request(method, path, **more)
        self.texts.append(f"{method} {path} {response.headers} {response.text}")
        assert response.status_code == status, response.text
        return response

    def task(self, *calls: tuple[str, str, dict[str, Any]], ends: str) -> str:
        """Submit and approve a task with these calls, follow it to this event, and return its path. Keep answers."""
        steps = [
            {"id": f"s{number}", "kind": "tool", "server": server, "tool": tool, "arguments": arguments}
            for number, (server, tool, arguments) in enumerate(calls, 1)
        ]
        body = {"prompt": "Tell", "plan": {"goal": "Tell", "steps": steps}}
        path = f"/v1/tasks/{self('POST', '/v1/tasks', 202, json=body).json()['task_id']}"
        self("POST", f"{path}/approve", 202)
        lines = []
        with self._client.stream("GET", f"{path}/stream") as stream:
            for line in stream.iter_lines():
                lines.append(line)
                if line == f"event: {ends}":
                    break
        self.texts.append("\n".join(lines))
        assert lines[-1] == f"event: {ends}", "\n".join(lines[-20:])
        self("GET", path)
        self("GET", f"{path}/events?limit=1000")
        return path


def command_lines() -> str:
    """Return the arguments of every process on this machine."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(180)  # it sends many requests, one after another
def test_planted_secrets_are_found_where_they_were_planted_and_nowhere_else(
    tmp_path: Path, hearsay: ThreadingHTTPServer
) -> None:
    planted = Planted(Folder(tmp_path), hearsay.server_port)
    with run_service(planted.folder) as service, planted.client(service) as client:
        heard = ClientRecord(client)
        path = heard.task(
            ("given", "tell", {}),
            ("bare", "tell", {}),
            ("hearsay", "hear", {}),
            ("ledger", "count", {"label": "one"}),
            ends="task.completed",
        )
        assert heard.texts[-1].count(REDACTED) > 4
        heard.task(("given", "refuse", {}), ends="task.failed")
        heard.task(("given", "break", {}), ends="task.failed")
        crashed = heard.task(("given", "crash", {}), ends="step.outcome_unknown")
        assert "last words" in heard.texts[-1]
        assert planted.found_in(command_lines()) <= {"argument for a server", "argument that is written out"}
        heard("POST", f"{crashed}/resolve", 202, json={"step_id": "s1", "resolution": "fail"})
        for server in ("nowhere", "unset"):
            plan = {"goal": "x", "steps": [{"id": "s1", "kind": "tool", "server": server, "tool": "x"}]}
            heard("POST", "/v1/tasks", 422, json={"prompt": "x", "plan": plan})
        heard("POST", "/v1/tasks", 422, json={"prompt": 7})
        heard("POST", "/v1/tasks", 400, content=b"{", headers={"Content-Type": "application/json"})
        for page in ("/nothing", "/v1/tasks/nothing"):
            heard("GET", page, 404)
        for page in ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/tasks"):
            heard("GET", page)
        assert {tool["server"] for tool in heard("GET", "/v1/tools").json()["tools"]} >= {"given", "bare", "hearsay"}
        states = {state["id"]: state["connected"] for state in heard("GET", "/v1/tools/status").json()}
        assert [states[name] for name in ("given", "hearsay", "nowhere", "unset")] == [True, True, False, False]
        planted.folder.env["AGENT_RUNTIME_API_KEY"] = planted.key
        said = [
            planted.folder(*words)
            for words in (("tools", "--refresh"), ("show", path.rpartition("/")[2]), ("tasks",), ("doctor", "--json"))
        ]
    told = {name: planted.found_in(planted.told_by(name).read_text(encoding="utf-8")) for name in ("given", "bare")}
    assert told == {
        "given": {"variable for a server", "argument for a server", "variable that a server repeats"},
        "bare": set(),
    }
    assert planted.found_in("".join(hearsay.heard)) == {  # type: ignore[attr-defined]
        "header for a server",
        "address of a server",
        "cookie that a server repeats",
    }
    for text in heard.texts:
        assert not planted.found_in(text), text
    for line in service.lines:
        assert not planted.found_in(line), line
    assert '"level": "debug"' in "".join(service.lines)
    for done in said:
        assert done.stdout
        assert not planted.found_in(done.stdout + done.stderr), done
    kept = {file for file in tmp_path.rglob("*") if file.is_file()} - planted.inputs
    kept -= {planted.told_by("given")}
    assert tmp_path / "data" / "agent-runtime.db" in kept
    for file in kept:
        assert not planted.found_in(file.read_bytes().decode("latin-1")), file


@pytest.mark.slow
def test_a_short_password_that_is_written_out_is_in_no_state_log_or_finding(tmp_path: Path) -> None:
    """The operator is told what to write instead, and is warned of a secret in the arguments of a command."""
    folder = Folder(tmp_path)
    config = {
        "command": "sh",
        "args": ["-c", "echo the code is $DOOR_PASSWORD, bearer of $MY_AUTH >&2; exit 3", "--token", "${env:GIVEN}"],
        "env": {"DOOR_PASSWORD": "x7!", "MY_AUTH": "open sesame", "GREETING": "hello"},
    }
    folder.write_registry({"id": "door", "type": "local_stdio", "config": config})
    folder.env |= {"GIVEN": "given-secret", "AGENT_RUNTIME_LOG__LEVEL": "debug"}
    with run_service(folder) as service, httpx2.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        doctor = folder("doctor", "--json").stdout
        assert folder("tools", "--refresh").returncode == 0
        states = client.get("/v1/tools/status").json()
    (detail,) = [state["detail"] for state in states if state["id"] == "door"]
    assert "stderr ends with: the code is [redacted], bearer of [redacted]" in detail
    log = "".join(service.lines)
    for text in (json.dumps(states), log, doctor):
        assert "[redacted]" in text
        assert not any(secret in text for secret in ("x7!", "open sesame", "given-secret"))
    for told in (log, doctor):
        assert "config.env.DOOR_PASSWORD contains a literal secret" in told
        assert "config.args contains the secret GIVEN, which every user of this machine can read" in told
        assert "config.env.GREETING" not in told


# Refusals


def rows(folder: Path) -> list[Any]:
    """Return all stored rows of tasks and events."""
    database = folder / "data" / "agent-runtime.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("tasks", "events")]  # noqa: S608


def drip_body(service: RunningService, path: str, key: str) -> int:
    """Send a body one byte at a time, never to its end, and return the status of the answer."""
    url = httpx2.URL(service.url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        connection.settimeout(0.02)
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            try:
                connection.sendall(b" ")
                if answer := connection.recv(65536):
                    return int(answer.split()[1])
            except TimeoutError:
                continue
    raise AssertionError("it was let drip")


@pytest.mark.slow
def test_each_refused_call_changes_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    keys = {
        name: new_key(name, scopes) for name, scopes in (("all", ["admin"]), ("reader", ["read"]), ("gone", ["admin"]))
    }
    file = tmp_path / "keys"
    file.write_text("\n".join(key.line for _, key in keys.values()), encoding="utf-8")
    config = {"auth": {"keys_file": str(file)}, "limits": {"request_body_s": 0.3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    bearer = {name: {"Authorization": f"Bearer {text}"} for name, (text, _) in keys.items()}
    task = {"prompt": "Add 15 and 27"}
    with run_service(folder) as service, httpx2.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        made = client.post("/v1/tasks", json=task, headers=bearer["gone"])
        path = f"/v1/tasks/{made.json()['task_id']}"
        with client.stream("GET", f"{path}/stream", headers=bearer["all"]) as stream:
            assert any(line == "event: plan.proposed" for line in stream.iter_lines())
        before = rows(tmp_path)
        file.write_text("\n".join(keys[name][1].line for name in ("all", "reader")), encoding="utf-8")
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer ar_" + "0" * 48}, 401),
            (bearer["gone"], 401),
            (bearer["reader"], 403),
            (bearer["all"] | {"Host": "evil.example"}, 421),
            (bearer["all"] | {"Origin": "https://evil.example"}, 403),
        ):
            for call, body in (("/v1/tasks", task), (f"{path}/approve", {}), (f"{path}/cancel", {})):
                answer = client.post(call, json=body, headers=headers)
                assert answer.status_code == status, (call, headers, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
            assert client.delete(path, headers=headers).status_code == status
        for call in ("/v1/tasks", f"{path}/approve", f"{path}/reject"):
            large = {"prompt": "x" * 1_100_000, "comment": "", "reason": ""}
            assert client.post(call, json=large, headers=bearer["all"]).status_code == 413
            assert drip_body(service, call, keys["all"][0]) == 408
        assert rows(tmp_path) == before
        assert client.post(f"{path}/approve", headers=bearer["all"]).status_code == 202
        assert rows(tmp_path) != before
