"""Doors that cost nothing until they are used."""

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import agent_runtime.api
from agent_runtime.api.app import ROUTERS
from agent_runtime.api.late_doors import LateDoor, flatten
from agent_runtime.api.scopes import RouteScopes

LATE = [router for router in ROUTERS if isinstance(router, LateDoor)]
RUNS = "agent_runtime.api.runs"
UNUSED = """
import sys
from pathlib import Path
from agent_runtime.api.app import create_app
from agent_runtime.config import Secrets, Settings
create_app(Settings(data_dir=Path(sys.argv[1])), Secrets())
print(*sys.modules)
"""


def test_the_modules_of_late_doors_are_not_imported_by_the_app(tmp_path: object) -> None:
    command = [sys.executable, "-c", UNUSED, str(tmp_path)]
    imported = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert "agent_runtime.api.rest" in imported
    assert LATE
    assert [door.module for door in LATE if door.module in imported] == []
    assert {"ag_ui", "graphql", "mcp.server"}.isdisjoint(imported), "nor are the libraries that only they need"


def test_no_module_of_the_doors_is_longer_than_700_lines() -> None:
    folder = Path(agent_runtime.api.__file__).parent
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in folder.rglob("*.py")}
    assert "rest.py" in lengths
    assert {name: length for name, length in lengths.items() if length > 700} == {}


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("DELETE", "/api/v1/health", 405, "GET"),
        ("GET", "/api/v1/health", 200, None),
        ("GET", "/api/v1/nothing", 404, None),
        ("GET", "/api/v1", 404, None),
        ("GET", "/api/v10/health", 404, None),
    ],
)
def test_a_late_door_answers_like_any_other(method: str, path: str, status: int, allowed: str | None) -> None:
    app = FastAPI()
    app.router.routes.append(LateDoor(RUNS, "/api/v1"))
    answer = TestClient(app).request(method, path)
    assert answer.status_code == status
    assert answer.headers.get("allow") == allowed


def test_the_scopes_of_a_late_door_are_those_of_its_routes() -> None:
    scopes = RouteScopes([LateDoor(RUNS, "/api/v1")])
    assert scopes.needed_scopes({"type": "http", "method": "POST", "path": "/api/v1/runs"}) == ("submit",)
    assert scopes.needed_scopes({"type": "http", "method": "GET", "path": "/api/v1/health"}) == ()
    assert scopes.needed_scopes({"type": "http", "method": "POST", "path": "/api/v1/else"}) == ("admin",)
    assert not scopes.takes_websocket({"type": "websocket", "path": "/api/v1/runs"})


def test_no_two_doors_have_one_path() -> None:
    paths = [getattr(route, "path", "") for router in ROUTERS if router not in LATE for route in router.routes]
    assert [path for door in LATE for path in paths if door.covers(path)] == []
    assert flatten(LATE)
