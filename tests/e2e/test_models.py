"""The state of the language model in the HTTP status and in the findings of the doctor."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from command_line import PATIENCE_S, Folder
from model_server import MODEL, ModelServer
from model_server.doctor_answers import WORD, answer_doctor
from model_server.replies import Answer, Calls, Fault, Text
from serving import Service, sums

KEY = "sk-not-for-anybody-else"
PASSWORD = "hunter2-hunter2"  # noqa: S105 - must not be shown
NO_MODEL = {"planner": "rules", "model": None}


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with ModelServer(key=KEY) as models:
        yield models


@contextmanager
def serve(folder: Path, models: ModelServer, **more: Any) -> Iterator[Service]:
    base_url = more.pop("base_url", models.base_url)
    openai = {"api_key": KEY, "base_url": base_url, "model": MODEL, "max_retries": 0, **more}
    service = Service(folder, openai=openai, limits={"planning_outage_s": 0})
    with service:
        yield service


def submit_prompt(service: Service, prompt: str) -> Any:
    """Submit a prompt, wait until the task is planned or has failed, and return it."""
    response = service.client.post("/v1/tasks", json={"prompt": prompt})
    assert response.status_code == 202, response.text
    task_id = response.json()["task_id"]
    with service.stream(task_id) as lines:
        for line in lines.iter_lines():
            if line in {"event: plan.proposed", "event: task.failed"}:
                break
    return service.task(task_id)


def test_without_a_model_the_status_says_that_rules_make_the_plans(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.start()
    try:
        shown = service.get("/v1/models/status")
        assert shown.pop("revision_help").startswith(
            "A plan can be changed by 'also ...', 'instead ...', 'call it b.txt'"
        )
        assert shown == NO_MODEL
    finally:
        service.client.close()
        service.stop()


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_the_status_shows_what_was_learned_and_asks_nothing(tmp_path: Path, models: ModelServer, api: str) -> None:
    models.levels = {"json_object"}
    models.on("Add", Text(json.dumps(sums(1))))
    with serve(tmp_path, models, api=api) as service:
        before = service.get("/v1/models/status")
        assert before == {
            "planner": "openai",
            "revision_help": None,
            "model": {
                "endpoint": models.base_url,
                "model": MODEL,
                "api": api,
                "circuit": "closed",
                "output": None,
                "last_error": None,
            },
        }
        assert models.requests == []
        task = submit_prompt(service, "Add")
        assert task["status"] == "awaiting_approval"
        planning = service.get(f"/v1/tasks/{task['task_id']}/planning")
        assert planning["task_id"] == task["task_id"]
        (attempt,) = planning["attempts"]
        assert (attempt["number"], attempt["revision"], attempt["outcome"]) == (1, 1, "planned")
        assert attempt["messages"][0]["content"].startswith("Add\n")
        assert json.loads(attempt["answer"]) == sums(1)
        assert attempt["usage"]["input_tokens"] > 0
        after = service.get("/v1/models/status")
        assert after["model"] == before["model"] | {"output": "json_object"}


@pytest.mark.slow
def test_the_status_shows_why_the_model_fails_and_that_it_is_left_alone(tmp_path: Path, models: ModelServer) -> None:
    models.on("", Fault("server_error"))
    with serve(tmp_path, models) as service:
        first = submit_prompt(service, "Add")
        assert first["error"]["code"] == "model_overloaded"
        shown = service.get("/v1/models/status")["model"]
        assert (shown["circuit"], shown["last_error"]) == ("closed", first["error"]["message"])
        for _ in range(4):
            submit_prompt(service, "Add")
        assert service.get("/v1/models/status")["model"]["circuit"] == "open"


@pytest.mark.slow
def test_the_status_shows_neither_the_key_nor_credentials_of_the_url(tmp_path: Path, models: ModelServer) -> None:
    models.key = "another"
    models.on("", WORD)
    url = models.base_url.replace("://", f"://me:{PASSWORD}@") + f"?token={PASSWORD}"
    with serve(tmp_path, models, base_url=url) as service:
        assert submit_prompt(service, "Add")["error"]["code"].startswith("model_")
        shown = service.client.get("/v1/models/status").text
    assert models.base_url in shown
    assert KEY not in shown
    assert PASSWORD not in shown


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def find_all(folder: Folder, models: ModelServer, *, key: str = KEY, **settings: str) -> dict[str, dict[str, Any]]:
    """Run the doctor, and return its findings by their names."""
    folder.env |= {"OPENAI_BASE_URL": models.base_url, "OPENAI_API_KEY": key, "AGENT_RUNTIME_OPENAI__MODEL": MODEL}
    folder.env |= {f"AGENT_RUNTIME_{name.upper()}": value for name, value in settings.items()}
    done = folder("doctor", "--json")
    assert KEY not in done.stdout + done.stderr
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == (1 if "fail" in {finding["state"] for finding in findings.values()} else 0)
    return findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("api", "level"), [("responses", "json_schema"), ("chat_completions", "json_object"), ("responses", "prompt")]
)
def test_the_doctor_says_what_the_endpoint_supports(folder: Folder, models: ModelServer, api: str, level: str) -> None:
    models.levels = {"json_schema": {"json_schema", "json_object"}, "json_object": {"json_object"}}.get(level, set())
    held = level == "json_schema"
    answer_doctor(models, word=WORD if held else Text('{"word": "hello"}'))
    found = find_all(folder, models, openai__api=api)
    assert found["planner"]["detail"] == "openai: the model makes the plans, and carries out agent steps"
    for part in (MODEL, models.base_url, " s: key accepted", api, f" {level},", "streamed (first text after", "tokens"):
        assert part in found["model"]["detail"]
    assert "the prompt of a plan was read whole" in found["model prompt"]["detail"]
    states = {check: found[check]["state"] for check in ("planner", "model", "model tools", "model prompt")}
    assert states == dict.fromkeys(states, "ok")
    assert found["model schema"]["state"] == ("ok" if held else "warn")


@pytest.mark.slow
def test_the_doctor_asks_few_and_bounded_questions_and_calls_no_tool(folder: Folder, models: ModelServer) -> None:
    folder.add_ledger(0)
    answer_doctor(models, call=Calls([("ledger__count", {"label": "one"}), ("read_thermometer", {"room": "kitchen"})]))
    assert find_all(folder, models)["model tools"]["state"] == "ok"
    asked = models.find_requests()
    assert [bool(request.tools) for request in asked] == [False, True, False, False]
    assert [tool for request in asked for tool in request.tools] == ["read_thermometer"]
    assert all(0 < (request.max_tokens or 0) <= 2048 for request in asked)
    assert not folder.ledger.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "state", "what"),
    [
        (Fault("wrong_key"), "fail", "OPENAI_API_KEY"),
        (Fault("drop"), "fail", "cannot be reached"),
        (Fault("rate_limited"), "warn", "try again later"),
    ],
)
def test_the_doctor_says_what_is_wrong_with_the_endpoint_and_asks_no_more(
    folder: Folder, models: ModelServer, reply: Answer, state: str, what: str
) -> None:
    models.on("", reply)
    found = find_all(folder, models)
    assert found["model"]["state"] == state
    assert what in found["model"]["detail"]
    assert not {"model schema", "model tools", "model prompt"} & found.keys()
    assert models.find_requests("kitchen") == []


@pytest.mark.slow
def test_the_doctor_names_an_endpoint_that_does_not_run(folder: Folder, models: ModelServer) -> None:
    folder.env["AGENT_RUNTIME_OPENAI__TIMEOUT_S"] = "5"
    models.port = 9  # the discard port, on which nobody listens
    model = find_all(folder, models)["model"]
    assert model["state"] == "fail"
    assert "cannot be reached" in model["detail"]


@pytest.mark.slow
def test_the_doctor_needs_no_key_where_the_endpoint_needs_none(folder: Folder, models: ModelServer) -> None:
    models.key = None
    answer_doctor(models)
    model = find_all(folder, models, key="")["model"]
    assert model["state"] == "ok"
    assert " s: no key, " in model["detail"]


@pytest.mark.slow
def test_the_doctor_says_that_rules_plan_where_the_settings_want_that(folder: Folder, models: ModelServer) -> None:
    answer_doctor(models)
    found = find_all(folder, models, planner="rules", openai__stream="false")
    assert found["planner"]["detail"] == "rules: plans are made offline; the model only carries out agent steps"
    assert "not streamed" in found["model"]["detail"]
    assert found["model tools"]["state"] == "ok"
    assert not {"model schema", "model prompt"} & found.keys()


@pytest.mark.slow
def test_the_doctor_misses_the_model_that_the_planner_needs(folder: Folder) -> None:
    folder.env["AGENT_RUNTIME_PLANNER"] = "openai"
    findings = {finding["check"]: finding for finding in folder.json("doctor", code=1)["findings"]}
    assert findings["planner"]["state"] == "fail"
    assert "OPENAI_BASE_URL" in findings["planner"]["detail"]


@pytest.mark.slow
def test_the_doctor_builds_the_planner_of_the_operator(folder: Folder) -> None:
    (folder.path / "own.py").write_text(
        "class Planner:\n"
        "    name, needs_model, builtin_first, revision_help = 'mine', False, True, None\n"
        "    def __init__(self, model): ...\n"
        "    async def plan(self, request): ...\n",
        encoding="utf-8",
    )
    folder.env |= {"PYTHONPATH": str(folder.path), "AGENT_RUNTIME_PLANNER": "own:Planner"}
    findings = {finding["check"]: finding for finding in folder.json("doctor")["findings"]}
    assert (findings["planner"]["state"], findings["planner"]["detail"]) == ("ok", "mine: plans are made offline")
    folder.env["AGENT_RUNTIME_PLANNER"] = "own:Other"
    findings = {finding["check"]: finding for finding in folder.json("doctor", code=1)["findings"]}
    assert findings["planner"]["detail"].startswith("planner: own:Other: own has no Other.")


@pytest.mark.slow
def test_the_doctor_imports_no_model_library_where_no_model_is_configured(folder: Folder) -> None:
    code = """
import sys
from agent_runtime.cli import main
try:
    main(["doctor", "--json"])
except SystemExit as ended:
    assert not ended.code, ended.code
assert not {"agents", "openai"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.path,
        env=folder.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rules: plans are made offline" in done.stdout
