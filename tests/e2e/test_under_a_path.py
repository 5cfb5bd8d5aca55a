"""The service behind nginx, under a path (`server.root_path`). Skipped without nginx or a browser."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from agent_runtime.api.keys import new_key
from browser import CHROMIUM, Browser
from command_line import Folder
from proxying import run_nginx
from serving import PATIENCE_S, frames_of
from waiting import eventually_sync

CONFIG = """
    server {{
        listen 127.0.0.1:{{port}};
        location /tools/runtime/ {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_buffering off;
        }}
    }}
"""


@pytest.fixture(params=["stripped", "passed on"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of the service under a path, which the proxy strips or passes on."""
    folder = Folder(tmp_path)
    folder.env["AGENT_RUNTIME_SERVER__ROOT_PATH"] = "/tools/runtime"
    with folder.serve() as serving:
        upstream = f"{serving.url}/" if request.param == "stripped" else serving.url
        with run_nginx(tmp_path / "nginx", CONFIG.format(upstream=upstream)) as origin:
            yield f"{origin}/tools/runtime"


@pytest.mark.slow
def test_links_tickets_and_streams_have_the_path(address: str) -> None:
    origin = address.removesuffix("/tools/runtime")
    with httpx2.Client(timeout=PATIENCE_S) as client:
        created = client.post(f"{address}/v1/tasks", json={"prompt": "Add 15 and 27"}).json()
        assert created["links"]["self"] == f"/tools/runtime/v1/tasks/{created['task_id']}"
        own = origin + created["links"]["self"]
        eventually_sync(lambda: client.get(own).json()["status"] != "pending")
        task = client.get(own).json()
        assert client.post(origin + created["links"]["approve"]).status_code == 202
        ticket = client.post(f"{address}/v1/tasks/{task['task_id']}/stream-ticket", json={}).json()
        assert ticket["url"].startswith("/tools/runtime/v1/tasks/")
        with client.stream("GET", origin + ticket["url"]) as response:
            assert [data for _, _, data in frames_of(response)][-1] == "[DONE]"
        assert client.get(f"{address}/openapi.json").json()["servers"] == [{"url": "/tools/runtime"}]
        assert client.get(f"{origin}/v1/tasks").status_code == 404  # from nginx: it serves nothing outside the path


@pytest.mark.slow
def test_the_pages_work_under_the_path(address: str, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the page needs Chromium, and this machine has none")
    browser = Browser(tmp_path / "browser")
    try:
        browser.open(f"{address}/#/new")
        browser.write("What should be done?", "Add 15 and 27")
        browser.press("Plan it")
        browser.until_shown("Adds 15 and 27.")
        browser.press("Approve")
        browser.until("document.querySelector('.task .status').innerText === 'completed'")
        browser.until_shown("42")
        browser.open(f"{address}/docs")
        browser.until_shown("/v1/tasks/{task_id}/approve")
        assert not browser.mistakes
    finally:
        browser.close()


@pytest.mark.slow
def test_a_root_path_that_is_no_path_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.env["AGENT_RUNTIME_SERVER__ROOT_PATH"] = "runtime/"
    refused = folder("serve", "--port", "0")
    assert refused.returncode == 2
    assert "server.root_path" in refused.stderr


@pytest.mark.slow
def test_a_path_is_never_taken_for_another_than_the_one_that_was_judged(tmp_path: Path) -> None:
    _, key = new_key("alice", ["admin"])
    folder = Folder(tmp_path)
    folder.env |= {"AGENT_RUNTIME_SERVER__ROOT_PATH": "/console", "AGENT_RUNTIME_AUTH__KEYS": key.line}
    with folder.serve() as serving:
        for times in range(4):
            address = f"{serving.url}{'/console' * times}/v1/tasks"
            assert httpx2.get(address, timeout=PATIENCE_S).status_code in {401, 404}
            assert httpx2.post(address, json={"prompt": "Add 1 and 2"}, timeout=PATIENCE_S).status_code in {401, 404}
