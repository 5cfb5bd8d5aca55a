"""A house whose server, `servers/shifty_server.py`, changes when the test tells it to."""

import json
import sys
from pathlib import Path
from typing import Any

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.task import Task
from harness import House, submit_plan, until_settled
from waiting import eventually

SERVER = Path(__file__).parents[1] / "servers" / "shifty_server.py"
TOOLS = ("count", "gate", "shift", "later", "die", "raw", "fail")
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def list_tools(**count: Any) -> list[dict[str, Any]]:
    """Return the tools that the server lists. `count` overrides fields of its tool of that name."""
    tools = [{"name": name, "description": name, "inputSchema": SCHEMA} for name in TOOLS]
    return [{**tools[0], **count}, *tools[1:]]


class ShiftyHouse(House):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hangs = folder / "hangs.txt"
        self.list_tools(list_tools())
        self.write_entry()

    def write_entry(
        self, *, hang: str = "", arguments: tuple[str, ...] = (), command: str = sys.executable, **entry: Any
    ) -> None:
        (self.folder / "hang.txt").write_text(hang, encoding="utf-8")
        env = {"HOUSE": str(self.folder)}
        config = {"command": command, "args": ["-S", "-E", str(SERVER), *arguments], "env": env}
        idempotent = {name: {"idempotent": True, "effect": "read"} for name in ("later", "die")}
        vouched = {"*": {"open_world": False}}
        self.write_registry(config=config, **{"tools": {**idempotent, **vouched}, **entry})

    def list_tools(self, tools: list[dict[str, Any]], name: str = "tools.json") -> None:
        (self.folder / name).write_text(json.dumps(tools), encoding="utf-8")

    def break_down(self, how: str) -> None:
        """Have the server end at each start: with this exit code, and these words on stderr."""
        (self.folder / "down").write_text(how, encoding="utf-8")

    def repair(self) -> None:
        (self.folder / "down").unlink(missing_ok=True)

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    async def wait_for_hangs(self, times: int) -> None:
        """Wait until this number of server processes hang."""
        await eventually(lambda: self.hangs.exists() and len(self.hangs.read_text().split()) >= times)


def plan_of(*steps: str, **arguments: Any) -> Plan:
    """Return a plan of consecutive calls: `tool:label` of the shifty server, or `server.tool` with these arguments."""
    made: list[dict[str, Any]] = []
    for number, step in enumerate(steps, 1):
        tool, colon, label = step.partition(":")
        server, _, name = ("ledger", "", tool) if colon else tool.partition(".")
        made.append(
            {
                "id": f"s{number}",
                "kind": "tool",
                "server": server,
                "tool": name,
                "arguments": {"label": label} if colon else arguments,
                "depends_on": [f"s{number - 1}"] if number > 1 else [],
            }
        )
    return Plan.model_validate({"goal": "try it", "steps": made})


async def submit_and_approve(runtime: Runtime, plan: Plan) -> Task:
    task = await submit_plan(runtime, plan)
    return await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)


async def run_plan(runtime: Runtime, plan: Plan) -> Task:
    """Submit and approve this plan, wait until the task has ended or needs attention, and return it."""
    return await until_settled(runtime, (await submit_and_approve(runtime, plan)).task_id)
