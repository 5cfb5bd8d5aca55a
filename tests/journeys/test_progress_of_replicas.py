"""Progress and tickets over two replicas: in one process, and as real processes."""

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import yaml

from agent_runtime.bootstrap import open_runtime
from agent_runtime.config import Secrets
from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.live.progress import Piece
from command_line import Folder
from harness import House, submit_plan, until_status
from serving import frames_of
from waiting import eventually_sync

SERVER = Path(__file__).parents[1] / "servers" / "working_server.py"
WORKING = {
    "id": "working",
    "type": "local_stdio",
    "config": {"command": sys.executable, "args": ["-S", "-E", str(SERVER)]},
    "tools": {"*": {"effect": "read", "open_world": False, "timeout_s": 10, "max_timeout_s": 30}},
}
PLAN = {
    "goal": "work",
    "steps": [{"id": "s1", "kind": "tool", "server": "working", "tool": "work", "arguments": {"label": "6"}}],
}


async def test_reports_and_text_at_one_replica_reach_a_follower_at_another(house: House, postgres_url: str) -> None:
    house.use_postgresql(postgres_url)
    house.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [WORKING]}), encoding="utf-8")
    other = house.settings.model_copy(update={"role": "api", "data_dir": house.folder / "other"})
    async with (
        asyncio.timeout(50),
        house.open() as working,
        open_runtime(other, Secrets(), parts=house.parts) as asked,
    ):
        task = await submit_plan(working, Plan.model_validate(PLAN))
        with asked.progress.listen(task.task_id) as listener:
            await asked.tasks.decide(task.task_id, Approve(), ANYBODY)
            (first, *_) = await listener.take()
            assert first.text.startswith("Step s1 reports progress: ")
            await until_status(asked, task.task_id, TaskStatus.COMPLETED)
            working.progress.say(task.task_id, Piece("s2", "Hello"))
            while (await listener.take())[-1] != Piece("s2", "Hello"):
                pass


@pytest.mark.slow
def test_a_ticket_of_one_process_opens_the_stream_of_another_and_shows_progress(
    tmp_path: Path, postgres_url: str
) -> None:
    folder = Folder(tmp_path)
    folder.write_registry(WORKING)
    key, line = folder("keys", "new", "ann", "--scopes", "submit,approve,read").stdout.splitlines()
    (tmp_path / "keys").write_text(f"{line}\n", encoding="utf-8")
    folder.env |= {
        "AGENT_RUNTIME_STORAGE__URL": postgres_url,
        "AGENT_RUNTIME_AUTH__MODE": "keys",
        "AGENT_RUNTIME_AUTH__KEYS_FILE": str(tmp_path / "keys"),
    }
    with ExitStack() as opened:
        replicas = []
        for role in ("all", "api"):
            folder.env |= {"AGENT_RUNTIME_ROLE": role, "AGENT_RUNTIME_DATA_DIR": str(tmp_path / role)}
            replicas.append(opened.enter_context(folder.serve()))
        working, asked = replicas
        client = opened.enter_context(httpx2.Client(timeout=30))
        client.headers["Authorization"] = f"Bearer {key}"
        task = client.post(f"{working.url}/v1/tasks", json={"prompt": "Work", "plan": PLAN}).json()["task_id"]
        ticket = client.post(f"{working.url}/v1/tasks/{task}/stream-ticket").json()
        path = f"/v1/tasks/{task}/stream?ticket={ticket['ticket']}"
        with httpx2.stream("GET", f"{asked.url}{path}", timeout=30) as response:
            assert response.status_code == 200
            eventually_sync(lambda: client.post(f"{asked.url}/v1/tasks/{task}/approve").status_code == 202)
            frames = list(frames_of(response))
        assert "call.progress" in [kind for kind, _, _ in frames]
        assert frames[-1][2] == "[DONE]"
        refused = httpx2.get(f"{asked.url}/v1/tasks/{task}/stream?ticket={ticket['ticket'][:-2]}00", timeout=30)
        assert refused.status_code == 401
