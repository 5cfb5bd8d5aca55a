"""Every door of the service as a program uses it. A new door is a class here, and a row in `DOORS`."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol
from uuid import uuid4

import httpx2
import pytest
from mcp_types import ElicitRequestFormParams, ElicitResult, TextResourceContents
from websockets.exceptions import ConnectionClosed

import agui
from agent_runtime.client import Client, ConflictError
from mcp_clients import call, mcp_client
from node_servers import NODE
from serving import PATIENCE_S, Service, frames_of
from sockets import messages_of, messages_until, open_socket, send

CLIENT_JS = files("agent_runtime.api").joinpath("client.js")

Ready = Callable[[], object]
"""Is called once a door is about to send its decision, and returns when it may."""


@dataclass(frozen=True)
class Ending:
    """The end of a task, as a door shows it: its result or error in `said`, and the number of calls that were sent."""

    status: str
    said: str | None
    calls: int


class Door(Protocol):
    """A way to use the service. Each method speaks the protocol of the door, and waits no longer than PATIENCE_S."""

    def __init__(self, service: Service) -> None: ...

    def submit(self, prompt: str) -> str:
        """Submit a task, and return its id."""

    def wait_for_plan(self, task_id: str) -> str:
        """Wait until the plan waits for approval, and return its digest."""

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        """Approve, reject or cancel. Return whether the decision was accepted; if not, the door has said why."""

    def wait_for_end(self, task_id: str) -> Ending:
        """Wait for the end of the task, and return what the door shows of it."""

    def close(self) -> None:
        """Release what the door holds."""


def _make_ending(task: Mapping[str, Any]) -> Ending:
    """Return the ending of a task as REST, the short addresses, the clients and MCP show it."""
    error = task["error"]
    said = error["message"] if error else task["result"] if task["status"] == "completed" else None
    return Ending(task["status"], said, sum(step["attempts"] for step in task["steps"]))


def _read_ending(frames: list[tuple[str, Any]]) -> Ending:
    """Return the ending that the events of a stream tell."""
    kind, event = [(kind, event) for kind, event in frames if kind not in {"message", "reply"}][-1]
    data = event["data"]
    said = data["message"] if kind == "task.failed" else data.get("result")
    calls = [each for each, _ in frames].count("tool.called")
    status = {"plan.rejected": "rejected"}.get(kind, kind.removeprefix("task."))
    return Ending(status, said, calls)


class Rest:
    """`/v1/tasks` with Server-Sent Events."""

    prefix = "/v1"

    def __init__(self, service: Service) -> None:
        self.service = service
        self.http = httpx2.Client(base_url=service.url, timeout=PATIENCE_S)

    def submit(self, prompt: str) -> str:
        answer = self.http.post(f"{self.prefix}/tasks", json={"prompt": prompt})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def wait_for_plan(self, task_id: str) -> str:
        with self.http.stream("GET", f"{self.prefix}/tasks/{task_id}/stream") as answer:
            events = (json.loads(data) for kind, _, data in frames_of(answer) if kind == "plan.proposed")
            return str(next(events)["data"]["digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        body = {"plan_digest": digest} if decision == "approve" else {}
        ready()
        answer = self.http.post(f"/v1/tasks/{task_id}/{decision}", json=body)
        if answer.status_code != 202:
            assert (answer.status_code, _code(answer.json())) == (409, "decision_refused")
        return answer.status_code == 202

    def wait_for_end(self, task_id: str) -> Ending:
        with self.http.stream("GET", f"{self.prefix}/tasks/{task_id}/stream") as answer:
            frames = [(kind, data if kind == "message" else json.loads(data)) for kind, _, data in frames_of(answer)]
        assert frames[-1] == ("message", "[DONE]")
        shown = _make_ending(self.http.get(f"{self.prefix}/tasks/{task_id}").json())
        assert shown == _read_ending(frames)
        return shown

    def close(self) -> None:
        self.http.close()


def _code(problem: Mapping[str, Any]) -> str:
    return str(problem["type"].rpartition(":")[2])


class Short(Rest):
    """`/api/tasks`, as document 000 asks for it. It decides on its WebSocket."""

    prefix = "/api"

    def submit(self, prompt: str) -> str:
        answer = self.http.post("/api/tasks", json={"description": prompt})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        return _decide_on_socket(self.service, f"/api/tasks/{task_id}/stream", decision, digest, ready)


class Socket(Rest):
    """`/v1/tasks/{id}/stream` as a WebSocket. Tasks are submitted over REST."""

    def wait_for_plan(self, task_id: str) -> str:
        with open_socket(self.service, task_id) as connection:
            return str(messages_until(connection, "plan.proposed")[-1]["data"]["data"]["digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        return _decide_on_socket(self.service, f"/v1/tasks/{task_id}/stream", decision, digest, ready)

    def wait_for_end(self, task_id: str) -> Ending:
        with open_socket(self.service, task_id) as connection:
            messages, code, reason = messages_of(connection)
        assert (code, reason, messages[-1]["data"]) == (1000, "done", "[DONE]")
        return _read_ending([(message["event"], message["data"]) for message in messages])


def _decide_on_socket(service: Service, path: str, decision: str, digest: str, ready: Ready) -> bool:
    """Decide on a WebSocket. If the task ends meanwhile, the close may come instead of a reply."""
    with open_socket(service, path) as connection:
        messages_until(connection, "plan.proposed")
        ready()
        with suppress(ConnectionClosed):
            send(connection, type=decision, id="mine", **({"plan_digest": digest} if decision == "approve" else {}))
        messages, code, reason = messages_of(connection)
    assert (code, reason) == (1000, "done")
    reply = next((message for message in messages if message["event"] == "reply"), None)
    if reply is None:
        assert "[DONE]" in [message["data"] for message in messages]
        return False
    assert reply["to"] == "mine"
    if not reply["ok"]:
        assert (reply["data"]["status"], _code(reply["data"])) == (409, "decision_refused")
    return bool(reply["ok"])


class Runs(Rest):
    """`/api/v1/runs`, as document 001 asks for it. It decides at the address that the run names."""

    def submit(self, prompt: str) -> str:
        answer = self.http.post("/api/v1/runs", json={"prompt": prompt})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["run_id"])

    def wait_for_plan(self, task_id: str) -> str:
        super().wait_for_plan(task_id)  # a run has no stream
        approval = self._read(task_id)["approval"]
        assert approval["url"] == f"/v1/tasks/{task_id}/approve"
        return str(approval["plan_digest"])

    def wait_for_end(self, task_id: str) -> Ending:
        super().wait_for_end(task_id)  # a run has no stream
        run = self._read(task_id)
        ended = {"The plan was rejected.": "rejected", "The run was cancelled.": "cancelled"}.get(run["error"])
        said = None if ended else run["error"] or run["result"]
        assert run["approval"] is None
        return Ending(ended or run["status"], said, len(run["steps"]))

    def _read(self, task_id: str) -> Any:
        return self.http.get(f"/api/v1/runs/{task_id}").json()


class PythonClient:
    """`agent_runtime.client`."""

    def __init__(self, service: Service) -> None:
        self._client = Client(service.url)

    def submit(self, prompt: str) -> str:
        return self._client.submit(prompt)["task_id"]

    def wait_for_plan(self, task_id: str) -> str:
        return str(self._client.wait(task_id, timeout_s=PATIENCE_S)["plan_digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        ready()
        try:
            if decision == "approve":
                self._client.approve(task_id, digest)
            else:
                getattr(self._client, decision)(task_id)
        except ConflictError as refused:
            assert refused.code == "decision_refused"  # noqa: PT017 - the door itself speaks
            return False
        return True

    def wait_for_end(self, task_id: str) -> Ending:
        list(self._client.follow(task_id, timeout_s=PATIENCE_S))
        return _make_ending(self._client.get_task(task_id))

    def close(self) -> None:
        self._client.close()


_NODE_CODE = """
import { createInterface } from "node:readline";
import { Client } from "CLIENT";
const client = new Client("URL");
const verbs = {
  ended: async (id) => { for await (const frame of client.follow(id)) frame; return client.getTask(id); },
};
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...words] = JSON.parse(line);
  let answer;
  try { answer = { ok: await (verbs[verb]?.(...words) ?? client[verb](...words)) }; }
  catch (error) { answer = { code: error.code ?? String(error) }; }
  console.log(JSON.stringify(answer));
}
"""


class JavaScriptClient:
    """`client.js`, in Node."""

    def __init__(self, service: Service) -> None:
        if NODE is None:
            pytest.skip("NOT TESTED: the JavaScript client needs node, and this machine has none")
        code = _NODE_CODE.replace("CLIENT", f"file://{CLIENT_JS}").replace("URL", service.url)
        words = [NODE, "--input-type=module", "--eval", code]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _call(self, *words: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def submit(self, prompt: str) -> str:
        return str(self._call("submit", prompt)["ok"]["task_id"])

    def wait_for_plan(self, task_id: str) -> str:
        return str(self._call("wait", task_id)["ok"]["plan_digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        ready()
        answer = self._call(decision, task_id, *([digest] if decision == "approve" else []))
        assert "ok" in answer or answer == {"code": "decision_refused"}
        return "ok" in answer

    def wait_for_end(self, task_id: str) -> Ending:
        return _make_ending(self._call("ended", task_id)["ok"])

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE_S)


class Mcp:
    """`/mcp`. A person decides in the client, by elicitation; it has no rejection without a question."""

    era = "2026-07-28"

    def __init__(self, service: Service) -> None:
        self._service = service

    def submit(self, prompt: str) -> str:
        return str(self._call("submit_task", prompt=prompt, wait_s=0)["task_id"])

    def wait_for_plan(self, task_id: str) -> str:
        return str(self._call("wait_for_task", task_id=task_id)["plan_digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        if decision == "cancel":
            ready()
            return bool(self._call("cancel_task", task_id=task_id)["status"] == "cancelled")
        answered: list[str] = []

        async def answer(question: ElicitRequestFormParams) -> ElicitResult:
            assert digest in question.message
            answered.append(question.message)
            await asyncio.to_thread(ready)
            return ElicitResult(action="accept", content={"decision": decision})

        async def work() -> Any:
            async with mcp_client(self._service, self.era, answer) as client:
                return await call(client, "wait_for_task", task_id=task_id)

        notes = asyncio.run(work())["notes"]
        assert answered
        assert len(notes) <= 1
        assert all("too late" in note or "refused" in note or "can be approved" in note for note in notes), notes
        return not notes

    def wait_for_end(self, task_id: str) -> Ending:
        async def read() -> str:
            async with mcp_client(self._service, self.era) as client:
                (task,) = (await client.read_resource(f"task://{task_id}")).contents
            assert isinstance(task, TextResourceContents)
            return task.text

        ended = self._call("wait_for_task", task_id=task_id, until="ended")
        task = json.loads(asyncio.run(read()))
        assert (ended["status"], ended["result"]) == (task["status"], task["result"])
        return _make_ending(task)

    def _call(self, tool: str, **arguments: Any) -> Any:
        async def work() -> Any:
            async with mcp_client(self._service, self.era) as client:
                return await call(client, tool, **arguments)

        return asyncio.run(work())

    def close(self) -> None:
        pass


class McpWithSession(Mcp):
    """`/mcp` in the era of sessions, in which the service asks the client, and withdraws a question."""

    era = "legacy"


def _find_thread(service: Service, task_id: str) -> str:
    """Return the thread of a task; that of one without a thread is its id."""
    return str(service.task(task_id)["thread"] or task_id)


class AgUi:
    """`/agui`."""

    prefix = ("/agui", "/agui/connect")

    def __init__(self, service: Service) -> None:
        self._service = service

    def submit(self, prompt: str) -> str:
        told = agui.run(self._service, agui.make_input(agui.name_thread(), prompt), self.prefix[0])
        return str(told.state["taskId"])

    def wait_for_plan(self, task_id: str) -> str:
        return str(self._connect(task_id).interrupt["metadata"]["digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        asked = self._connect(task_id).interrupt
        assert asked["metadata"]["digest"] == digest
        comment = {"comment": agui.name_thread()} if decision == "approve" else {}  # another door's is another approval
        payload = {} if decision == "cancel" else {"approved": decision == "approve", **comment}
        entry = agui.answer_to(asked, "cancelled" if decision == "cancel" else "resolved", **payload)
        ready()
        told = agui.run(self._service, self._give(task_id, resume=[entry]), self.prefix[0])
        refused = len(told.events) == 2
        assert not refused or told.outcome in {"decision_refused", "interrupt_expired"}, told.end
        return not refused

    def wait_for_end(self, task_id: str) -> Ending:
        told = self._connect(task_id)
        state = told.state
        said = state["error"]["message"] if state["error"] else state["result"]
        messages = told.of("MESSAGES_SNAPSHOT")[-1]["messages"]
        return Ending(state["status"], said, sum(len(message.get("toolCalls", ())) for message in messages))

    def _connect(self, task_id: str) -> agui.Told:
        return agui.run(self._service, self._give(task_id), self.prefix[1])

    def _give(self, task_id: str, **more: Any) -> dict[str, Any]:
        return agui.make_input(_find_thread(self._service, task_id), None, **more)

    def close(self) -> None:
        pass


class CopilotKit(AgUi):
    """`/copilotkit`, by its paths."""

    prefix = ("/copilotkit/agent/default/run", "/copilotkit/agent/default/connect")


class CopilotKitGraphql:
    """`/copilotkit` in GraphQL."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def submit(self, prompt: str) -> str:
        said = {"id": "1", "createdAt": "2026-01-02T03:04:05Z", "textMessage": {"role": "user", "content": prompt}}
        state = self._read_state(self._generate(f"thread-{uuid4()}", messages=[said]))
        return str(state["task_id"])

    def wait_for_plan(self, task_id: str) -> str:
        return str(self._find_interrupt(task_id)["metadata"]["digest"])

    def decide(self, task_id: str, decision: str, digest: str, ready: Ready) -> bool:
        asked = self._find_interrupt(task_id)
        assert asked["metadata"]["digest"] == digest
        answers = {
            "approve": {"approved": True, "comment": str(uuid4())},  # another door's is another approval
            "reject": {"approved": False},
            "cancel": {"cancelled": True},
        }
        event = {
            "name": "LangGraphInterruptEvent",
            "value": json.dumps(asked),
            "response": json.dumps(answers[decision]),
        }
        ready()
        answer = self._generate(_find_thread(self._service, task_id), metaEvents=[event])
        if "errors" not in answer:
            return True
        code = answer["errors"][0]["extensions"]["originalError"]["code"]
        assert code in {"decision_refused", "interrupt_expired"}, answer
        return False

    def wait_for_end(self, task_id: str) -> Ending:
        answer = self._generate(_find_thread(self._service, task_id))
        state = self._read_state(answer)
        said = state["error"]["message"] if state["error"] else state["result"]
        kinds = [one["__typename"] for one in answer["data"]["generateCopilotResponse"]["messages"]]
        return Ending(state["status"], said, kinds.count("ActionExecutionMessageOutput"))

    def _find_interrupt(self, task_id: str) -> Any:
        answer = self._generate(_find_thread(self._service, task_id))
        (event,) = answer["data"]["generateCopilotResponse"]["metaEvents"]
        return json.loads(event["value"])

    def _read_state(self, answer: Any) -> Any:
        messages = answer["data"]["generateCopilotResponse"]["messages"]
        return json.loads([one["state"] for one in messages if "state" in one][-1])["task"]

    def _generate(self, thread: str, **more: Any) -> Any:
        query = """mutation ($data: GenerateCopilotResponseInput!) { generateCopilotResponse(data: $data) {
          messages { __typename ... on AgentStateMessageOutput { state } }
          metaEvents { ... on LangGraphInterruptEvent { value } } } }"""
        data = {"threadId": thread, "messages": [], "metadata": {}, "frontend": {"actions": []}, **more}
        body = {"query": query, "variables": {"data": data}}
        headers = {"Authorization": self._service.client.headers.get("Authorization", "")}
        with httpx2.Client(timeout=PATIENCE_S, headers={k: v for k, v in headers.items() if v}) as client:
            return client.post(f"{self._service.url}/copilotkit", json=body).json()

    def close(self) -> None:
        pass


DOORS: dict[str, type[Door]] = {
    "rest": Rest,
    "websocket": Socket,
    "short addresses": Short,
    "runs": Runs,
    "python": PythonClient,
    "javascript": JavaScriptClient,
    "mcp": Mcp,
    "mcp with a session": McpWithSession,
    "ag-ui": AgUi,
    "copilotkit": CopilotKit,
    "copilotkit graphql": CopilotKitGraphql,
}
"""All doors. Those of one test share a service."""


@contextmanager
def open_doors(service: Service, names: list[str]) -> Iterator[dict[str, Door]]:
    """Open these doors on a service, and close them at the end."""
    doors: dict[str, Door] = {}
    try:
        for name in names:
            doors[name] = DOORS[name](service)
        yield doors
    finally:
        for door in doors.values():
            door.close()
