"""The journeys of a task through a front end, and the service on which they are made."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from command_line import LEDGER_SERVER
from front_ends import FrontEnd, Shown
from model_server import MODEL, ModelServer
from model_server.replies import Fault, Text
from serving import KillableService, Service, free_port
from waiting import eventually_sync

STORY = "Once upon a time a ledger counted every call, and nobody ever had to ask for one twice."
BEGINNING = "Once upon a time"
CALL = {"id": "s1", "title": "Call", "kind": "tool", "server": "ledger", "arguments": {"label": "one"}}
TELL = {"id": "tell", "title": "Tell", "kind": "agent", "instruction": "Write the story.", "tools": []}


@dataclass
class Stage:
    """A service whose model plans what is asked for, a slow tool, and a client."""

    service: Service
    models: ModelServer
    folder: Path
    front: FrontEnd

    def delay(self, seconds: float) -> None:
        """Set how long the tool takes, also a call of it that has begun."""
        new = self.folder / "new_delay.txt"
        new.write_text(str(seconds), encoding="utf-8")
        new.replace(self.folder / "delay.txt")

    @property
    def calls(self) -> list[str]:
        ledger = self.folder / "ledger.txt"
        return ledger.read_text(encoding="utf-8").split() if ledger.exists() else []

    @property
    def task(self) -> Any:
        """The newest task, as it is."""
        return self.service.get("/v1/tasks")["tasks"][0]


def _plan(step: dict[str, Any]) -> Text:
    return Text(json.dumps({"goal": "Do it", "steps": [step]}))


@contextmanager
def set_up(folder: Path, open_front: Callable[[Service], FrontEnd], **server: Any) -> Iterator[Stage]:
    """Run a service in a folder, and open a front end on it."""
    with ModelServer() as models:
        for tool in ("look", "count", "fail"):
            models.on(f"Please {tool}", _plan({**CALL, "tool": tool}))
        models.on("Please tell", _plan(TELL))
        models.on("Write the story", Fault("stall_stream", STORY))
        openai = {"base_url": models.base_url, "model": MODEL, "max_retries": 0}
        limits = {"cancel_grace_s": 0.1, "shutdown_s": 0.5, "planning_outage_s": 0}
        service = KillableService(folder, openai=openai, limits=limits, server={"port": free_port(), **server})
        env = {"LEDGER": str(folder / "ledger.txt"), "DELAY": str(folder / "delay.txt")}
        config = {"command": sys.executable, "args": ["-S", "-E", str(LEDGER_SERVER)], "env": env}
        tools = {"look": {"idempotent": True, "effect": "read"}, "*": {"open_world": False}}
        entry = {"id": "ledger", "type": "local_stdio", "config": config, "tools": tools}
        service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [entry]}), encoding="utf-8")
        with service, closing(open_front(service)) as front:
            stage = Stage(service, models, folder, front)
            stage.delay(0)
            yield stage


def ask(stage: Stage, prompt: str) -> None:
    """Ask for something, and see its plan."""
    stage.delay(0)
    (stage.folder / "ledger.txt").unlink(missing_ok=True)
    shown = stage.front.ask(prompt)
    assert (shown.status, shown.asked) == ("awaiting_approval", ("confirmation",)), stage.task
    assert stage.calls == []


def expect(stage: Stage, shown: Shown, status: str, *results: str) -> None:
    """Check that a client shows the end of its task: one plan, and each result once."""
    assert (shown.status, shown.results, shown.asked) == (status, results, ())
    assert shown.plans in {None, 1}
    assert stage.task["status"] == status


def complete(stage: Stage) -> None:
    ask(stage, "Please look")
    shown = stage.front.answer("approve")
    assert stage.task["status"] == "completed"
    expect(stage, stage.front.come_back(), "completed", "counted one")
    assert shown.results == ("counted one",)
    assert stage.calls == ["one"]


def begin_long_call(stage: Stage, prompt: str) -> None:
    """Have a plan approved, and wait until its call, which does not end by itself, is under way."""
    ask(stage, prompt)
    stage.delay(60)
    stage.front.begin("approve")
    eventually_sync(lambda: stage.calls)


def deny(stage: Stage) -> None:
    ask(stage, "Please look")
    assert stage.front.answer("deny").status == stage.task["status"] == "rejected"
    assert stage.calls == []


def cancel(stage: Stage) -> None:
    ask(stage, "Please look")
    assert stage.front.answer("cancel").status == stage.task["status"] == "cancelled"
    assert stage.calls == []


def fail(stage: Stage) -> None:
    ask(stage, "Please fail")
    assert stage.front.answer("approve").status == stage.task["status"] == "failed"
    assert stage.calls == ["one"]


def reconnect(stage: Stage) -> None:
    begin_long_call(stage, "Please look")
    stage.front.leave()
    assert stage.task["status"] == "executing"
    stage.delay(0)
    expect(stage, stage.front.come_back(), "completed", "counted one")
    assert stage.calls == ["one"]


def crash(stage: Stage) -> None:
    """Kill the service, and start it again."""
    stage.service.stop()
    stage.delay(0)
    stage.service.start()


def repeat_after_crash(stage: Stage) -> None:
    begin_long_call(stage, "Please look")
    crash(stage)
    expect(stage, stage.front.come_back(), "completed", "counted one")
    assert stage.calls == ["one", "one"], "it may be called again"


def resolve_after_crash(stage: Stage) -> None:
    begin_long_call(stage, "Please count")
    crash(stage)
    shown = stage.front.come_back()
    assert shown.status == "needs_attention"
    assert [reason.rpartition(":")[2] for reason in shown.asked] == ["outcome_unknown"]
    assert stage.front.answer("done").status == stage.task["status"] == "completed"
    assert stage.calls == ["one"], "it may not be called again"


JOURNEYS: dict[str, Callable[[Stage], None]] = {
    "plan, approval, call, result": complete,
    "denial": deny,
    "cancellation": cancel,
    "error": fail,
    "reconnection in the middle of a call": reconnect,
    "crash in the middle of a call": repeat_after_crash,
    "unknown outcome after a crash": resolve_after_crash,
}
