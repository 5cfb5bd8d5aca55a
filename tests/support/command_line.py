"""The command line as real processes in a folder of their own. Every wait is bounded."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

LEDGER_SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"
PATIENCE_S = 30.0
BUILTINS = [
    {"id": "filesystem", "type": "builtin", "config": {"server": "filesystem", "root": "files"}},
    {"id": "calculator", "type": "builtin", "config": {"server": "calculator"}},
    {"id": "text", "type": "builtin", "enabled": False, "config": {"server": "text"}},
]
AGENT_RUNTIME = [sys.executable, "-m", "agent_runtime"]


class Folder:
    """A working directory with a tool registry, for `agent-runtime`. `starter` is a command that starts the service."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.files = folder / "files"
        self.files.mkdir()
        self.ledger = folder / "ledger.txt"
        self.starter: Sequence[str] = ()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "AGENT_RUNTIME_LIMITS__CANCEL_GRACE_S": "0.1",
        }
        self.write_registry()

    def write_registry(self, *more: dict[str, Any]) -> None:
        text = yaml.safe_dump({"tool_registry": [*BUILTINS, *more]})
        (self.path / "tool_registry.yaml").write_text(text, encoding="utf-8")

    def add_ledger(self, delay_s: float) -> None:
        """Register the ledger server: its `look` is idempotent, its `count` is not."""
        self.env["LEDGER_DELAY_S"] = f"{delay_s:.6f}"  # a unique text, since expanded values are redacted everywhere
        config = {
            "command": sys.executable,
            "args": ["-S", "-E", str(LEDGER_SERVER)],
            # A reference, so that another delay does not change the identity of the server.
            "env": {"LEDGER": str(self.ledger), "DELAY_S": "${env:LEDGER_DELAY_S}"},
        }
        tools = {"look": {"idempotent": True, "effect": "read"}}
        self.write_registry({"id": "ledger", "type": "local_stdio", "config": config, "tools": tools})

    def __call__(self, *words: str, says: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `says` as standard input."""
        return subprocess.run(
            [*AGENT_RUNTIME, *words],
            cwd=self.path,
            env=self.env,
            input=says,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def json(self, *words: str, code: int = 0) -> Any:
        """Run a command with --json, and return the document that it prints."""
        done = self(*words, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def propose_task(self, prompt: str = "Add 15 and 27") -> str:
        """Submit a task, and return its id. It awaits approval, and no process runs it."""
        done = self("run", prompt)
        assert done.returncode == 3, done.stderr
        return done.stdout.strip()

    @contextmanager
    def serve(self, *words: str) -> Iterator["ServiceProcess"]:
        """Run a service in its own process, and stop it with SIGTERM at the end."""
        command = [*self.starter, *AGENT_RUNTIME, *(words or ("serve",)), "--port", "0"]
        process = subprocess.Popen(command, cwd=self.path, env=self.env, stderr=subprocess.PIPE, text=True)
        serving = ServiceProcess(process)
        try:
            serving.wait_for_start()
            yield serving
        finally:
            serving.stop()


class ServiceProcess:
    """A service process with its URL. `log` is its output so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self.log = ""
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, name="log")
        self._reader.start()

    def _read(self) -> None:
        """Read all output: the process would block on a full pipe."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.log += line
            if not self.url and line.startswith("{") and (event := json.loads(line))["event"] == "started":
                self.url = event["url"]
                self._started.set()
        self._started.set()

    def wait_for_start(self) -> None:
        assert self._started.wait(PATIENCE_S)
        assert self.url, self.log

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self._reader.join(PATIENCE_S)
            if self.process.stderr:
                self.process.stderr.close()

    def submit(self, plan: dict[str, Any], *, approve: bool = False) -> str:
        with httpx2.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            answer = client.post("/v1/tasks", json={"prompt": "Count", "plan": plan})
            assert answer.status_code == 202, answer.text
            task_id = str(answer.json()["task_id"])
            if approve:
                assert client.post(f"/v1/tasks/{task_id}/approve").status_code == 202
        return task_id

    def follow_until(self, task_id: str, event: str) -> None:
        """Follow the stream of the task until this event."""
        with (
            httpx2.Client(base_url=self.url, timeout=PATIENCE_S) as client,
            client.stream("GET", f"/v1/tasks/{task_id}/stream") as response,
        ):
            for line in response.iter_lines():
                if line == f"event: {event}":
                    return
        raise AssertionError(f"there was no {event}")


def ledger_call(tool: str, **step: Any) -> dict[str, Any]:
    """Return a plan with one call of the ledger."""
    call = {"id": "s1", "kind": "tool", "server": "ledger", "tool": tool, "arguments": {"label": "one"}}
    return {"goal": "Count", "steps": [call | step]}


class Terminal:
    """A command with a terminal as standard input and error, and a pipe as standard output."""

    def __init__(self, folder: Folder, words: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.process = subprocess.Popen(
            [*AGENT_RUNTIME, *words],
            cwd=folder.path,
            env=folder.env,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Wait until this text is shown. The time limit of the test bounds the wait."""
        while text not in self.shown:
            try:
                data = os.read(self._master, 4096)
            except OSError:  # the other side has closed
                data = b""
            assert data, self.shown
            self.shown += data.decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and the output."""
        self._drain()
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, printed

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                return
            if not data:
                return
            self.shown += data.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)
        os.close(self._master)


@contextmanager
def terminal(folder: Folder, *words: str) -> Iterator[Terminal]:
    shown = Terminal(folder, words)
    try:
        yield shown
    finally:
        shown.close()
