"""The WebSocket with the clients that people use: a browser, wscat, and a thousand at once (G8, G11)."""

import asyncio
import json
import os
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.asyncio.client import connect as connect_client

from browser import CHROMIUM, Browser
from command_line import Folder
from node_servers import NODE, install
from serving import PATIENCE_S, Service, sums
from sockets import HANDSHAKE, read_frames
from waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FOLLOW = """
window.seen = []; window.ended = undefined;
window.socket = new WebSocket(location.origin.replace('http', 'ws') + %s);
socket.onmessage = (message) => {
  const frame = JSON.parse(message.data);
  seen.push(frame);
  if (frame.event === 'plan.proposed') socket.send(JSON.stringify(%s));
};
socket.onclose = (close) => { window.ended = [close.code, close.reason]; };
true
"""
SAYS = {
    "completed": {"type": "approve", "id": "mine"},
    "failed": {"type": "approve", "id": "mine"},
    "rejected": {"type": "reject", "id": "mine", "reason": "no"},
    "cancelled": {"type": "cancel", "id": "mine"},
}
PLANS: dict[str, Any] = {
    "failed": {"goal": "fail", "steps": [{**sums(1)["steps"][0], "arguments": {"expression": "1 / 0"}}]}
}
"""The plans of tasks that go another way than `sums(2)`."""


@pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium")
def test_a_page_follows_and_decides_in_a_browser(service: Service, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    try:
        browser.open(service.url)
        browser.until("document.readyState === 'complete'")
        for status, message in SAYS.items():
            task_id = service.submit(plan=PLANS.get(status, sums(2)))
            path = f"/api/tasks/{task_id}/stream"
            assert browser.value_of(FOLLOW % (json.dumps(path), json.dumps(message)))
            browser.until("window.ended !== undefined")
            assert browser.value_of("window.ended") == [1000, "done"]
            seen: list[Any] = browser.value_of("window.seen")
            assert [one["ok"] for one in seen if one["event"] == "reply"] == [True]
            assert next(one["id"] for one in seen if one["data"] == "[DONE]") == service.frames(task_id)[-1][1]
            assert service.task(task_id)["status"] == status
            browser.value_of(FOLLOW % (json.dumps(f"{path}?after=2.0"), "{}"))
            browser.until("window.ended !== undefined")
            assert browser.value_of("window.seen[0].id") == "2.1"
        browser.value_of(FOLLOW % (json.dumps("/v1/tasks/task_none/stream"), "{}"))
        browser.until("window.ended !== undefined")
        code, reason = browser.value_of("window.ended")
        assert (code, reason.partition(":")[0]) == (4404, "task_not_found")
    finally:
        browser.close()


def run_wscat(service: Service, path: str, message: str = "") -> list[Any]:
    """Connect with wscat until the service closes, send a message once there is a plan, and return what it printed."""
    wscat = install("wscat", "bin/wscat")
    url = f"ws{service.url.removeprefix('http')}{path}"
    command = [str(NODE), str(wscat), "--no-color", "--connect", url]
    printed: list[Any] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            if (start := line.find("{")) >= 0:
                printed.append(json.loads(line[start:]))
            if '"plan.proposed"' in line and message:
                process.stdin.write(message + "\n")
                process.stdin.flush()
        process.wait(PATIENCE_S)
    return printed


@pytest.mark.parametrize("status", SAYS)
def test_wscat_follows_and_decides_and_goes_on_where_it_was(service: Service, status: str) -> None:
    task_id = service.submit(plan=PLANS.get(status, sums(2)))
    path = f"/v1/tasks/{task_id}/stream"
    printed = run_wscat(service, path, json.dumps(SAYS[status]))
    assert [(one["to"], one["ok"]) for one in printed if one["event"] == "reply"] == [("mine", True)]
    frames = [one for one in printed if one["event"] != "reply"]
    assert frames[-1]["data"] == "[DONE]"
    assert service.task(task_id)["status"] == status
    assert run_wscat(service, f"{path}?after={frames[2]['id']}") == frames[3:]


def test_wscat_ends_with_the_service_and_goes_on_after_its_start(own_service: Service) -> None:
    task_id = own_service.submit(plan=sums(2))
    path = f"/v1/tasks/{task_id}/stream"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run_wscat, own_service, path)
        eventually_sync(lambda: own_service.open_streams == 1, within_s=PATIENCE_S)
        own_service.restart()
        seen = first.result(PATIENCE_S)
    last = seen[-1]["id"] if seen else "0"
    own_service.approve(task_id)
    seen += run_wscat(own_service, f"{path}?after={last}")
    assert [one["id"] for one in seen] == [frame_id for _, frame_id, _ in own_service.frames(task_id)]


async def test_a_thousand_clients_see_one_task_and_the_service_answers_meanwhile(tmp_path: Path) -> None:
    clients = 1000
    with Folder(tmp_path).serve() as service:
        task_id = service.submit(sums(2))
        url = f"ws{service.url.removeprefix('http')}/v1/tasks/{task_id}/stream"
        opened: asyncio.Queue[None] = asyncio.Queue()
        places = asyncio.Semaphore(50)

        async def follow() -> tuple[str, ...]:
            async with places:
                connection = await connect_client(url, open_timeout=120, compression=None, ping_interval=None)
            async with connection:
                ids = [json.loads(await connection.recv())["id"]]
                opened.put_nowait(None)
                ids += [json.loads(message)["id"] async for message in connection]
            return (*ids, str(connection.close_code))

        async with asyncio.timeout(240), asyncio.TaskGroup() as group:
            following = [group.create_task(follow()) for _ in range(clients)]
            for _ in range(clients):
                await opened.get()
            async with connect_client(f"{url}?after=2") as one:
                await one.send(json.dumps({"type": "approve", "id": 1}))
        seen = Counter(each.result() for each in following)
    assert len(seen) == 1
    ((ids, count),) = seen.items()
    assert (count, ids[0], ids[-1]) == (clients, "1.0", "1000")


def test_clients_that_read_nothing_cost_no_memory_and_lose_nothing(tmp_path: Path) -> None:
    clients = 10
    folder = Folder(tmp_path)
    (folder.path / "files" / "long.txt").write_text("x" * 450_000)
    read = {"kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "long.txt"}}
    plan = {"goal": "read", "steps": [{"id": f"s{number}", **read} for number in range(40)]}
    with folder.serve() as service, ExitStack() as held:
        made = httpx2.post(f"{service.url}/v1/tasks", json={"prompt": "Read", "plan": plan, "max_steps": 40})
        task_id = made.json()["task_id"]
        assert httpx2.post(f"{service.url}/v1/tasks/{task_id}/approve").status_code == 202
        service.follow_until(task_id, "task.completed")
        address = urlsplit(service.url)
        port = address.port or 0
        path = f"/v1/tasks/{task_id}/stream?view=events&after=2"
        whole = read_frames_to_close(open_slowly(held, port, path))
        sent = sum(len(content) for _, content in whole)
        assert sent > 8_000_000  # more than the kernel buffers
        before = memory_of(service.process.pid)
        slow = [open_slowly(held, port, path) for _ in range(clients)]
        assert read_frames_to_close(open_slowly(held, port, path)) == whole  # the others have had their turn
        grown = memory_of(service.process.pid) - before
        assert grown < clients * sent / 3, (grown, sent)
        for connection in slow[:3]:
            assert read_frames_to_close(connection) == whole


def open_slowly(held: ExitStack, port: int, path: str) -> socket.socket:
    """Open a WebSocket of which the kernel buffers little, and read only the answer to the handshake."""
    connection = held.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(HANDSHAKE.format(path=path, more="").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection


def read_frames_to_close(connection: socket.socket) -> list[tuple[int, bytes]]:
    """Return all frames up to that which closes the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
    data = b""
    while not data.endswith(b"done"):
        data += connection.recv(1_000_000)
    return list(read_frames(data))


def memory_of(process: int) -> int:
    """Return the bytes of memory that a process has."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
