"""The clients of a page follow each way of a task, and go on after a restart in the middle of a call (G8)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, Browser
from command_line import ledger_call
from serving import Service, free_port, sums
from slow_tools import slow_service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium"),
]

EVENT_SOURCE = """
(window.listen = (id, verb) => {
  window.seen = [];
  window.source = new EventSource(`/v1/tasks/${id}/stream`);
  source.onmessage = ({ data, lastEventId }) => {
    seen.push([lastEventId, data]);
    if (data === "[DONE]") source.close();
  };
  source.addEventListener("plan.proposed", ({ data }) => {
    const { digest: plan_digest } = JSON.parse(data).data;
    const body = verb === "approve" ? JSON.stringify({ plan_digest }) : undefined;
    const headers = { "Content-Type": "application/json" };
    fetch(`/v1/tasks/${id}/${verb}`, { method: "POST", headers, body });
  });
}) && true
"""
"""Follows a task with an EventSource, and decides once the plan is there."""

FOLLOWERS = """
(window.follow = (id) => {
  window.heard = { source: [], socket: [], client: [] };
  window.ended = [];
  window.failed = [];
  const source = new EventSource(`/v1/tasks/${id}/stream?view=log`);
  source.onmessage = ({ data, lastEventId }) => {
    heard.source.push(lastEventId);
    if (data === "[DONE]") { source.close(); ended.push("source"); }
  };
  const open = () => {
    const after = heard.socket.length ? `&after=${heard.socket.at(-1)}` : "";
    const url = `/v1/tasks/${id}/stream?view=log${after}`;
    const socket = new WebSocket(location.origin.replace("http", "ws") + url);
    socket.onmessage = ({ data }) => heard.socket.push(JSON.parse(data).id);
    socket.onclose = ({ code }) => code === 1000 ? ended.push("socket") : setTimeout(open, 100);
  };
  open();
  import("/client.js").then(async ({ Client }) => {
    const client = new Client(location.origin);
    for await (const frame of client.follow(id)) {
      if (frame.event === "message") heard.client.push(frame.id);
    }
    ended.push("client");
  }).catch((error) => failed.push(String(error)));
}) && true
"""
"""Follows a task in three ways at once; each goes on by itself after the connection has ended."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield browser
    finally:
        browser.close()


def open_page(browser: Browser, service: Service) -> None:
    browser.open(service.url)
    browser.until(f"document.readyState === 'complete' && location.origin === {json.dumps(service.url)}")


FAILING: dict[str, Any] = {"goal": "fail", "steps": [{**sums(1)["steps"][0], "arguments": {"expression": "1 / 0"}}]}
WAYS = {
    "completed": (sums(2), "approve", "Completed: 42"),
    "failed": (FAILING, "approve", "Failed: "),
    "rejected": (sums(2), "reject", "Plan rejected"),
    "cancelled": (sums(2), "cancel", "Cancelled"),
}


def test_an_event_source_sees_each_way_to_its_end(service: Service, browser: Browser) -> None:
    open_page(browser, service)
    browser.value_of(EVENT_SOURCE)
    for status, (plan, verb, last) in WAYS.items():
        task_id = service.submit(plan=plan)
        browser.value_of(f"listen({json.dumps(task_id)}, {json.dumps(verb)})")
        browser.until("source.readyState === EventSource.CLOSED")
        seen = browser.value_of("seen")
        lines = [(frame_id, data) for kind, frame_id, data in service.frames(task_id) if kind == "message"]
        assert [tuple(each) for each in seen] == lines
        assert seen[-2][1].startswith(last), seen
        assert service.task(task_id)["status"] == status


def test_all_clients_of_a_page_see_every_frame_once_over_a_restart_during_a_call(
    tmp_path: Path, browser: Browser
) -> None:
    with slow_service(tmp_path, 1, port=free_port()) as service:
        open_page(browser, service)
        browser.value_of(FOLLOWERS)
        task_id = service.submit(plan=ledger_call("look"))
        browser.value_of(f"follow({json.dumps(task_id)})")
        service.approve(task_id)
        calls = next(frame_id for frame_id, data in lines_until(service, task_id, " calls "))
        browser.until(f"Object.values(heard).every((ids) => ids.includes({json.dumps(calls)}))")
        service.restart()
        browser.until("ended.length === 3 || failed.length > 0")
        assert browser.value_of("failed") == []
        expected = [frame_id for _, frame_id, _ in service.frames(task_id, view="log")]
        heard = browser.value_of("heard")
        assert heard == {"source": expected, "socket": expected, "client": expected[:-1]}  # it keeps `[DONE]` to itself
        assert service.task(task_id)["status"] == "completed"


def lines_until(service: Service, task_id: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the line of the log that has this text, once it is there."""
    with service.stream(task_id, view="log") as response:
        frame_id = ""
        for line in response.iter_lines():
            if line.startswith("id: "):
                frame_id = line.removeprefix("id: ")
            if line.startswith("data: ") and text in line:
                yield frame_id, line
                return
