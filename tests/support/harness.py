"""The runtime in this process, with a SQLite file and MCP servers as processes, for tests of whole journeys."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from agent_runtime.bootstrap import Parts, Runtime, open_runtime
from agent_runtime.config import OpenAISettings, Secrets, Settings, StorageSettings
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.events import ANONYMOUS, EventRecord, PlanApproved
from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.ports import AppendObserver
from agent_runtime.services.task_manager import Submission
from agent_runtime.storage.sqlite.store import SqliteStore

LEDGER_SERVER = Path(__file__).parents[1] / "servers" / "ledger_server.py"
PATIENCE_S = 20.0
ANN = Caller("ann", "default", frozenset({"submit", "approve", "read"}), "key")


class House:
    """The files of a runtime that is opened several times: data directory, registry, and ledger of the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.txt"
        self.files = folder / "files"
        self.files.mkdir(exist_ok=True)
        self.settings = Settings(data_dir=folder / "data", tool_registry=folder / "tool_registry.yaml")
        self.settings.data_dir.mkdir(exist_ok=True)
        self.parts = Parts(spares=None, pauses=Pauses(circuit_s=0.1))
        self.root = "files"
        self.entries: list[dict[str, Any]] = []
        self.write_registry()

    def write_registry(self, *, delay_s: float = 0, tools: dict[str, Any] | None = None, **entry: Any) -> None:
        builtin = [
            {"id": "filesystem", "type": "builtin", "config": {"server": "filesystem", "root": self.root}},
            {"id": "calculator", "type": "builtin", "config": {"server": "calculator"}},
            {"id": "text", "type": "builtin", "config": {"server": "text"}},
            {"id": "todo", "type": "builtin", "config": {"server": "todo"}},
        ]
        ledger = {
            "id": "ledger",
            "type": "local_stdio",
            "config": {
                "command": sys.executable,
                "args": ["-S", "-E", str(LEDGER_SERVER)],
                "env": {"LEDGER": str(self.ledger), "DELAY": str(self.folder / "delay.txt")},
            },
            "tools": tools or {"look": {"idempotent": True, "effect": "read"}, "*": {"open_world": False}},
            **entry,
        }
        self.entries = [*builtin, ledger]
        registry = {"tool_registry": self.entries}
        (self.folder / "delay.txt").write_text(str(delay_s), encoding="utf-8")
        self.settings.tool_registry.write_text(yaml.safe_dump(registry), encoding="utf-8")

    def limit(self, **limits: Any) -> None:
        changed = self.settings.limits.model_copy(update=limits)
        self.settings = self.settings.model_copy(update={"limits": changed})

    def set_approval(self, **settings: Any) -> None:
        changed = self.settings.approval.model_copy(update=settings)
        self.settings = self.settings.model_copy(update={"approval": changed})

    def use_model(self, base_url: str, **settings: Any) -> None:
        """Use the model at this endpoint for plans and agent steps."""
        quick = {"model": "test-model", "max_retries": 1, "timeout_s": 5.0, **settings}
        self.settings = self.settings.model_copy(update={"openai": OpenAISettings(base_url=base_url, **quick)})

    def use_store(self, store: Callable[..., SqliteStore]) -> None:
        """Use this store. It is called with the path of the database, and `observe`."""

        def open_store(
            settings: StorageSettings, *, shared: bool = False, observe: AppendObserver | None = None
        ) -> SqliteStore:
            path = settings.database_path
            assert not shared
            return store(path, observe=observe)

        self.parts = replace(self.parts, open_store=open_store)

    def use_postgresql(self, url: str) -> None:
        """Keep the journal in a PostgreSQL database."""
        update = {"storage": StorageSettings(url=url), "runner": "procrastinate"}
        self.settings = self.settings.model_copy(update=update)

    def wait(self, **pauses: Any) -> None:
        """Set the pauses before retries."""
        self.parts = replace(self.parts, pauses=replace(self.parts.pauses, **pauses))

    @property
    def counted(self) -> list[str]:
        return self.ledger.read_text(encoding="utf-8").split() if self.ledger.exists() else []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Runtime]:
        async with open_runtime(self.settings, Secrets(), parts=self.parts) as runtime:
            yield runtime


def ledger_plan(*labels: str, tool: str = "count") -> Plan:
    """Return a plan with one call per label; each call depends on the one before it."""
    return Plan.model_validate(
        {
            "goal": "count",
            "steps": [
                {
                    "id": f"s{number}",
                    "kind": "tool",
                    "server": "ledger",
                    "tool": tool,
                    "arguments": {"label": label},
                    "depends_on": [f"s{number - 1}"] if number > 1 else [],
                }
                for number, label in enumerate(labels, 1)
            ],
        }
    )


def ledger_graph(shape: Mapping[str, Sequence[str]], tools: Mapping[str, str] | None = None) -> Plan:
    """Return a plan with a call per step id, labelled with that id. `shape` maps ids to the ids that they depend on.

    `tools` maps step ids to tools; the default is `count`.
    """
    steps = [
        {
            "id": step_id,
            "kind": "tool",
            "server": "ledger",
            "tool": (tools or {}).get(step_id, "count"),
            "arguments": {"label": step_id},
            "depends_on": list(needs),
        }
        for step_id, needs in shape.items()
    ]
    return Plan.model_validate({"goal": "count", "steps": steps})


async def submit_plan(runtime: Runtime, plan: Plan, key: str | None = None) -> Task:
    return await runtime.tasks.submit(
        Submission(prompt="count", plan=plan, request_key=key, request_digest=key), ANYBODY
    )


async def approve_and_stop(house: House, plan: Plan, *, names_digest: bool = True, actor: str = ANONYMOUS) -> Task:
    """Return a task that was approved just before the service stopped."""
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan)
        approval = PlanApproved(revision=1, digest=task.plan_digest or "", names_digest=names_digest, actor=actor)
        return await runtime.store.append(task, [approval])


async def until(runtime: Runtime, task_id: str, reached: Callable[[Task], bool]) -> Task:
    """Wait, for a limited time, until the task fulfils a condition, and return it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            task = await runtime.tasks.get(task_id, ANYBODY)
            if reached(task):
                return task
            await runtime.store.wait_for_change(task_id, task.version)


async def until_status(runtime: Runtime, task_id: str, *statuses: TaskStatus) -> Task:
    return await until(runtime, task_id, lambda task: task.status in statuses)


async def until_settled(runtime: Runtime, task_id: str) -> Task:
    """Wait until the task has ended or needs attention, and return it."""
    return await until(runtime, task_id, lambda task: task.terminal or task.status is TaskStatus.NEEDS_ATTENTION)


async def until_waiting(runtime: Runtime, task_id: str, attempt: int = 1) -> Task:
    """Wait until this many attempts to reach what the task needs have failed, and return it."""
    return await until(runtime, task_id, lambda task: task.waiting is not None and task.waiting.attempt >= attempt)


def names(records: Sequence[EventRecord]) -> list[str]:
    return [record.type for record in records]
