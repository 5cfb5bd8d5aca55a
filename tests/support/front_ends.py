"""Real clients of agent front ends and agents, unmodified, as the person in front of each sees a task.

A new client is a class here, and a row in `FRONT_ENDS`.
"""

import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from mcp import Client
from mcp_types import ElicitRequestFormParams, ElicitResult, TextResourceContents

from agent_runtime.domain.status import TERMINAL
from agui import NodeClient, answer_to, start_client
from copilotkit_clients import decode_answer, start_talk
from mcp_clients import Person, call, mcp_client, stdio
from mcp_node_clients import node_client
from serving import Service

DECISIONS: Mapping[str, Mapping[str, Any]] = {
    "approve": {"approved": True},
    "deny": {"approved": False},
    "done": {"resolution": "done"},
}
"""What a person decides, as the answer to an interrupt."""


@dataclass(frozen=True)
class Shown:
    """A task as a client shows it: its status, the results of its calls, and what a model has said in its steps.

    `asked`: the reasons of the open questions. `plans`: how many plans are shown; None where a client shows no history.
    """

    status: str
    results: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    plans: int | None = None


class FrontEnd(Protocol):
    """A client. What waits returns once a person is needed, or the task has ended."""

    def ask(self, prompt: str) -> Shown:
        """Say what is to be done, and wait."""

    def answer(self, decision: str) -> Shown:
        """Answer what is open (see `DECISIONS`; "cancel" cancels the task), and wait."""

    def begin(self, decision: str) -> None:
        """Answer what is open, and do not wait."""

    def leave(self) -> None:
        """Go away in the middle of what has begun, as a client that is closed."""

    def come_back(self) -> Shown:
        """Find the task again, and wait: the same client, or a new one after it has left."""

    def close(self) -> None:
        """Release what the front end holds."""


class Chat(FrontEnd, Protocol):
    """A client that shows what a model writes while it writes."""

    def answer_and_leave(self, decision: str, seen: str) -> None:
        """Answer what is open, and go away once the client shows this text."""


class _Background:
    """One answer at a time in a thread, so that a test may do something meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: Future[Any] | None = None

    def begin(self, work: Callable[[], Any]) -> None:
        self._begun = self._pool.submit(work)

    def finish(self) -> None:
        """Wait for the end of what has begun. Whether it succeeded is of no interest: its connection was lost."""
        if self._begun is not None:
            self._begun.exception()
            self._begun = None

    def close(self) -> None:
        self._pool.shutdown()


class AgUi:
    """`@ag-ui/client`, and `@copilotkit/core` by each of its transports."""

    def __init__(self, service: Service, kind: str) -> None:
        self._service, self._kind = service, kind
        self._background = _Background()
        self._client: NodeClient | None = None
        self._thread = ""
        self._asked: list[Any] = []
        self._given: list[Any] = []

    def _do(self, **command: Any) -> Shown:
        if self._client is None:
            self._client = start_client(self._service, self._kind)
        known = self._client.do(0, self._thread, **command)
        self._asked = known["interrupts"]
        said = known["messages"]
        assert len({message["id"] for message in said}) == len(said)
        texts = [message for message in said if message["role"] == "assistant" and message.get("content")]
        state = known["state"]
        if state.get("status") in TERMINAL:
            called = [call["id"] for message in said for call in message.get("toolCalls") or ()]
            assert called == [message["toolCallId"] for message in said if message["role"] == "tool"]
        return Shown(
            state.get("status", ""),
            tuple(message["content"] for message in said if message["role"] == "tool"),
            tuple(message["content"] for message in texts if "-tell-" in message["id"]),
            tuple(one["reason"] for one in self._asked),
            sum("-plan-" in message["id"] for message in texts),
        )

    def ask(self, prompt: str) -> Shown:
        self._thread = str(uuid4())
        self.leave()
        return self._do(say=prompt, messageId=str(uuid4()))

    def answer(self, decision: str, **more: Any) -> Shown:
        cancels = decision == "cancel"
        payload = {} if cancels else DECISIONS[decision]
        self._given = [answer_to(one, "cancelled" if cancels else "resolved", **payload) for one in self._asked]
        return self._do(resume=self._given, **more)

    def begin(self, decision: str) -> None:
        self._background.begin(lambda: self.answer(decision))

    def answer_and_leave(self, decision: str, seen: str) -> None:
        self.answer(decision, leaveAt=seen)
        self.leave()

    def leave(self) -> None:
        if self._client is not None:
            self._client.end()
            self._client = None
        self._background.finish()

    def come_back(self) -> Shown:
        self._background.finish()
        if self._client is not None and self._asked:
            return self._do(resume=self._given)  # it has not heard that its answers arrived, and sends them again
        return self._do(act="connect")

    def close(self) -> None:
        self.leave()
        self._background.close()


class Graphql:
    """`@copilotkit/runtime-client-gql`. It finds a task again by `loadAgentState`, and by sending its message again."""

    def __init__(self, service: Service, version: str) -> None:
        self._service, self._version = service, version
        self._background = _Background()
        self._request: dict[str, Any] = {}
        self._asked: list[Any] = []
        self._process: subprocess.Popen[str] | None = None

    def _talk(self, **request: Any) -> Any:
        self._process = start_talk(self._version, self._service.url, **request)
        return decode_answer(self._process)

    def _send(self, **more: Any) -> Shown:
        return self._show(self._talk(**self._request, **more))

    def _show(self, said: Any) -> Shown:
        self._asked = said.get("metaEvents") or self._asked
        messages = said["messages"]
        ids = [message["id"] for message in messages]
        assert len(set(ids)) == len(ids)
        texts = [message for message in messages if message["type"] == "TextMessage" and message["role"] == "assistant"]
        states = [message["state"]["task"] for message in messages if message["type"] == "AgentStateMessage"]
        if states and states[-1]["status"] in TERMINAL:
            called = {message["id"] for message in messages if message["type"] == "ActionExecutionMessage"}
            answered = [one["actionExecutionId"] for one in messages if one["type"] == "ResultMessage"]
            assert len(answered) == len(set(answered))
            assert called <= set(answered)
        return Shown(
            states[-1]["status"] if states else "",
            tuple(message["result"] for message in messages if message["type"] == "ResultMessage"),
            tuple(message["content"] for message in texts if "-tell-" in message["id"]),
            tuple(json.loads(event["value"])["reason"] for event in said.get("metaEvents") or ()),
            sum(message["content"].startswith("Plan, revision") for message in texts),
        )

    def ask(self, prompt: str) -> Shown:
        ids = {"threadId": str(uuid4()), "id": str(uuid4())}
        self._request = {"kind": "generate", **ids, "prompt": prompt}
        return self._send()

    def answer(self, decision: str, **more: Any) -> Shown:
        response = {"cancelled": True} if decision == "cancel" else DECISIONS[decision]
        events = [{"name": one["name"], "value": one["value"], "response": json.dumps(response)} for one in self._asked]
        return self._send(metaEvents=events, **more)

    def begin(self, decision: str) -> None:
        self._background.begin(lambda: self.answer(decision))

    def answer_and_leave(self, decision: str, seen: str) -> None:
        self.answer(decision, leave=seen)

    def leave(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._background.finish()

    def come_back(self) -> Shown:
        self._background.finish()
        data = {"threadId": self._request["threadId"], "agentName": "agent-runtime"}
        loaded = self._talk(kind="state", data=data)
        assert loaded["data"]["loadAgentState"]["threadExists"] is True
        shown = self._send()
        loaded = self._talk(kind="state", data=data)
        results = tuple(one["result"] for one in loaded["messages"] if one["type"] == "ResultMessage")
        assert results == shown.results
        return shown

    def close(self) -> None:
        self.leave()
        self._background.close()


class Mcp:
    """An MCP client. Who decides is asked by it; it finds a task again by its id, and shows no history."""

    def __init__(self, service: Service, era: str) -> None:
        self._service, self._era = service, era
        self._background = _Background()
        self._task_id = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working: asyncio.Task[Any] | None = None

    async def _use(self, decision: str | None, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool with a new client, whose person decides this; None: it has no person."""

        async def person(_: ElicitRequestFormParams) -> ElicitResult:
            return ElicitResult(action="accept", content={"decision": decision or ""})

        async with self._connect(person if decision else None) as client:
            return await call(client, tool, **arguments)

    def _connect(self, person: Person | None = None) -> AbstractAsyncContextManager[Client]:
        return mcp_client(self._service, self._era, person)

    async def _read(self) -> Any:
        async with self._connect() as client:
            (content,) = (await client.read_resource(f"task://{self._task_id}")).contents
        assert isinstance(content, TextResourceContents)
        return json.loads(content.text)

    def _call(self, decision: str | None, tool: str, **arguments: Any) -> Shown:
        async def work() -> Any:
            self._loop, self._working = asyncio.get_running_loop(), asyncio.current_task()
            given = await self._use(decision, tool, arguments)
            self._task_id = given["task_id"]
            return given, await self._read()

        given, task = asyncio.run(work())
        assert given["status"] == task["status"]
        outputs = [step["output"] for step in task["steps"] if step["output"] is not None]
        asked = [one["kind"] for one in given["attention"]]
        waits = ["confirmation"] if given["status"] == "awaiting_approval" else []
        texts = tuple(map(str, outputs))
        return Shown(given["status"], texts, texts, (*waits, *asked))

    def ask(self, prompt: str) -> Shown:
        return self._call(None, "submit_task", prompt=prompt)

    def answer(self, decision: str) -> Shown:
        if decision == "cancel":
            return self._call(None, "cancel_task", task_id=self._task_id)
        return self._call(self._name(decision), "wait_for_task", task_id=self._task_id)

    def _name(self, decision: str) -> str:
        return {"deny": "reject"}.get(decision, decision)

    def begin(self, decision: str) -> None:
        self._background.begin(lambda: self.answer(decision))

    def leave(self) -> None:
        if self._loop is not None and self._working is not None:
            with suppress(RuntimeError):  # the loop has ended with its work
                self._loop.call_soon_threadsafe(self._working.cancel)
        self._background.finish()

    def come_back(self) -> Shown:
        self.leave()
        return self._call(None, "wait_for_task", task_id=self._task_id)

    def close(self) -> None:
        self.leave()
        self._background.close()


class McpStdio(Mcp):
    """The same with `agent-runtime mcp serve`, which each client starts for itself."""

    def _connect(self, person: Person | None = None) -> AbstractAsyncContextManager[Client]:
        return stdio(self._service.settings.data_dir, self._era, "--url", self._service.url, person=person)


class McpTypeScript(Mcp):
    """The same with the clients of the TypeScript SDK."""

    async def _use(self, decision: str | None, tool: str, arguments: Mapping[str, Any]) -> Any:
        answer = {"action": "accept", "content": {"decision": decision}} if decision else None
        async with node_client(self._era, self._service.url, answer=answer) as client:
            return (await client.call(tool, **arguments))["task"]

    async def _read(self) -> Any:
        async with node_client(self._era, self._service.url) as client:
            return json.loads(await client.do("read", uri=f"task://{self._task_id}"))


CHATS: Mapping[str, Callable[[Service], Chat]] = {
    "ag-ui 1.0": lambda service: AgUi(service, "ag-ui"),
    "copilotkit core, rest": lambda service: AgUi(service, "rest"),
    "copilotkit core, single": lambda service: AgUi(service, "single"),
    "copilotkit core, auto": lambda service: AgUi(service, "auto"),
    "copilotkit graphql 1.10.6": lambda service: Graphql(service, "1.10.6"),
    "copilotkit graphql 1.74.0": lambda service: Graphql(service, "1.74.0"),
}
FRONT_ENDS: Mapping[str, Callable[[Service], FrontEnd]] = {
    **CHATS,
    "mcp python, sessions": lambda service: Mcp(service, "legacy"),
    "mcp python, stateless": lambda service: Mcp(service, "2026-07-28"),
    "mcp python, mcp serve": lambda service: McpStdio(service, "2026-07-28"),
    "mcp typescript 1.32": lambda service: McpTypeScript(service, "sdk 1.32"),
    "mcp typescript 2.4, sessions": lambda service: McpTypeScript(service, "client 2.4 legacy"),
    "mcp typescript 2.4, stateless": lambda service: McpTypeScript(service, "client 2.4 modern"),
}
