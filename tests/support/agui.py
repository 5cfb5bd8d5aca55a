"""AG-UI as a program uses it: runs over plain HTTP, and unmodified clients in Node."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from node_servers import FOLDER, install_packages
from serving import PATIENCE_S, Service

DRIVER = Path(__file__).with_name("agui_client.mjs")
PROMPT = "Add 15 and 27, and write the result into count.txt"
_numbers = count(1)


@dataclass(frozen=True)
class Told:
    """The events that a run told."""

    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def end(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def interrupts(self) -> list[dict[str, Any]]:
        return list(self.end["outcome"]["interrupts"]) if self.outcome == "interrupt" else []

    @property
    def interrupt(self) -> dict[str, Any]:
        (interrupt,) = self.interrupts
        return interrupt

    @property
    def outcome(self) -> str:
        """The kind of outcome; the code of an error."""
        return str(self.end["code"] if self.end["type"] == "RUN_ERROR" else self.end["outcome"]["type"])

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.of("STATE_SNAPSHOT")[-1]["snapshot"])


def name_thread() -> str:
    """Return a name that no other thread of this process has."""
    return f"thread-{next(_numbers)}"


def make_input(thread: str, say: str | None = PROMPT, message_id: str = "m1", **more: Any) -> dict[str, Any]:
    messages = [] if say is None else [{"id": message_id, "role": "user", "content": say}]
    return {"threadId": thread, "runId": f"run-{next(_numbers)}", "messages": messages, **more}


def answer_to(interrupt: Mapping[str, Any], status: str = "resolved", **payload: Any) -> dict[str, Any]:
    """Return an entry of `resume`."""
    return {"interruptId": interrupt["id"], "status": status, **({"payload": payload} if payload else {})}


def run(service: Service, given: Mapping[str, Any], path: str = "/agui", key: str | None = None) -> Told:
    """Run, and return what was told."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = service.client.post(path, json=given, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return Told([json.loads(frame) for frame in frames])


def resume(service: Service, thread: str, *entries: Mapping[str, Any], **more: Any) -> Told:
    return run(service, make_input(thread, None, resume=list(entries), **more))


class NodeClient:
    """An unmodified client in Node. `kind`: `ag-ui`, or the transport of CopilotKit: `rest`, `single` or `auto`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, client: int, thread: str, **command: Any) -> dict[str, Any]:
        """Have a client do something, and return what it then knows."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"client": client, "threadId": thread, **command}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client has ended"
        return dict(json.loads(line))

    def end(self) -> None:
        """End the clients at once, with all their connections."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=PATIENCE_S)


def start_client(service: Service, kind: str) -> NodeClient:
    """Start clients of one kind in a process."""
    command = [install_packages(FOLDER), str(DRIVER), kind, service.url, str(FOLDER)]
    return NodeClient(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


@contextmanager
def open_client(service: Service, kind: str) -> Iterator[NodeClient]:
    """Start clients of one kind, and end them at the end."""
    client = start_client(service, kind)
    try:
        yield client
    finally:
        client.end()


def read_error(answer: httpx2.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()
