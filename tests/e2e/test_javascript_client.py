"""The JavaScript client in Node, against a real service. The page and the Cellery sample run it in a browser."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from callers import serve_with_keys
from command_line import ledger_call
from painting import RED, images_of, painting_plan, serve_painter
from serving import PATIENCE_S, Service, free_port, sums
from slow_tools import slow_service

NODE = shutil.which("node")
CLIENT = files("agent_runtime.api").joinpath("client.js")
SERVERS = Path(__file__).parents[1] / "servers"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "javascript-client.md"


@contextmanager
def node(code: str, *, url: str, key: str = "", more: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Run code in Node. It has `client` for the service at `url`, and `print`, which prints a line of JSON."""
    if NODE is None:
        pytest.skip("NOT TESTED: the JavaScript client needs node, and this machine has none")
    script = f"""
import {{ ApiError, Client, ServiceUnreachableError, parseExactly }} from {json.dumps(f"file://{CLIENT}")};
const client = new Client({json.dumps(url)}, {{ key: {json.dumps(key)}, {more} }});
const print = (value) => console.log(JSON.stringify(value));
const failure = async (work) => {{
  try {{ await work(); }} catch (error) {{
    const {{ name, message, status, code, errors, taskStatus, retryAfter }} = error;
    return {{ name, message, status, code, errors, taskStatus, retryAfter }};
  }}
}};
{code}
"""
    words = [NODE, "--input-type=module", "--eval", script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def run(code: str, **more: Any) -> list[Any]:
    """Run code in Node to its end, and return what it printed."""
    with node(code, **more) as process:
        printed, said = process.communicate(timeout=2 * PATIENCE_S)
        assert process.returncode == 0, said
    return [json.loads(line) for line in printed.splitlines()]


def test_a_plan_is_approved_followed_and_has_its_result(service: Service) -> None:
    code = """
const { task_id: id } = await client.submit("Add up", { plan: PLAN });
const task = await client.wait(id);
print(task.status);
await client.approve(id, task.plan_digest);
const frames = [];
for await (const frame of client.follow(id)) frames.push(frame);
print(frames);
print((await client.wait(id)).result);
const rest = [];
for await (const frame of client.follow(id, { after: frames[3].id })) rest.push(frame);
print(rest);
"""
    waiting, frames, result, rest = run(f"const PLAN = {json.dumps(sums(2))};{code}", url=service.url)
    assert (waiting, result) == ("awaiting_approval", "42")
    assert frames[0]["event"] == "task.submitted"
    assert [frame["event"] for frame in frames].count("tool.returned") == 2
    assert rest == frames[4:]


@pytest.mark.slow
def test_what_is_refused_is_an_error_with_every_field(service: Service) -> None:
    task_id = service.submit(plan=sums(1))
    code = f"""
print(await failure(() => client.submit("Add", {{ plan: {{ goal: "none", steps: [] }} }})));
print(await failure(() => client.getTask("../tools")));
print(await failure(() => client.approve("{task_id}", "sha256:other")));
await client.reject("{task_id}", "no");
print(await failure(() => client.approve("{task_id}")));
"""
    invalid, missing, outdated, late = run(code, url=service.url)
    assert (invalid["name"], invalid["status"], invalid["code"]) == ("ApiError", 422, "invalid_plan")
    assert invalid["errors"][0]["field"].startswith("plan.")
    assert (missing["status"], missing["retryAfter"]) == (404, None)
    assert outdated["code"] == "digest_mismatch"
    assert (late["code"], late["taskStatus"]) == ("decision_refused", "rejected")


@pytest.mark.slow
def test_every_verb_does_what_it_says(own_service: Service) -> None:
    code = f"""
const plan = {json.dumps(sums(1))}, longer = {json.dumps(sums(2))};
const same = {{ plan, idempotencyKey: "one" }};
const {{ task_id: id }} = await client.submit("Add", same);
print((await client.submit("Add", same)).task_id === id);
const {{ plan_digest: digest }} = await client.getTask(id);
print((await client.edit(id, longer, digest)).plan_revision);
await client.cancel(id, "enough");
const {{ task_id: again }} = await client.rerun(id);
print((await client.wait(again)).rerun_of.task_id === id);
await client.approve(again);
print((await client.wait(again)).result);
print((await client.exportAudit(again)).calls.length);
print((await client.listTasks({{ status: "completed", limit: 1, cursor: null }})).tasks.length);
await client.deleteTask(again);
print((await failure(() => client.wait(again))).status);
print((await client.listTools()).some(({{ tool }}) => tool === "evaluate"));
const missing = {{ id: "s1", kind: "tool", server: "filesystem", tool: "read_file", arguments: {{ path: "no.txt" }} }};
const {{ task_id: failing }} = await client.submit("Read", {{ plan: {{ goal: "Read", steps: [missing] }} }});
await client.approve(failing);
print((await client.wait(failing)).error.code);
"""
    own_service.refresh_tools()
    assert run(code, url=own_service.url) == [True, 2, True, "42", 2, 1, 404, True, "tool_error"]


@pytest.mark.slow
def test_a_question_of_a_server_is_answered_declined_or_dismissed(own_service: Service) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    asking = {"id": "asking", "type": "local_stdio", "config": config, "tools": {"*": {"effect": "read"}}}
    own_service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [asking]}), encoding="utf-8")
    own_service.restart()
    own_service.refresh_tools()
    step = {"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}
    code = f"""
for (const [at, verb] of ["answer", "answer", "dismiss"].entries()) {{
  const {{ task_id: id }} = await client.submit("Ask", {{ plan: {{ goal: "Ask", steps: [{json.dumps(step)}] }} }});
  await client.approve(id);
  const [{{ question_id: question }}] = (await client.wait(id)).attention;
  await client[verb](id, question, at ? null : {{ name: "Ann" }});
  print(JSON.parse((await client.wait(id)).result));
}}
"""
    answered = {"action": "accept", "content": {"name": "Ann"}}
    assert run(code, url=own_service.url) == [answered, {"action": "decline"}, {"action": "cancel"}]


@pytest.mark.slow
def test_a_task_that_runs_is_cancelled_and_a_signal_ends_the_wait(tmp_path: Path) -> None:
    code = f"""
const {{ task_id: id }} = await client.submit("Look", {{ plan: {json.dumps(ledger_call("look"))} }});
await client.approve(id);
for await (const {{ event }} of client.follow(id)) if (event === "tool.called") break;
print((await failure(() => client.wait(id, {{ signal: AbortSignal.timeout(300) }}))).name);
await client.cancel(id);
print((await client.wait(id)).status);
"""
    with slow_service(tmp_path, 30) as service:
        assert run(code, url=service.url) == ["TimeoutError", "cancelled"]


@pytest.mark.slow
def test_every_frame_comes_once_over_a_restart_of_the_service(tmp_path: Path) -> None:
    code = f"""
const {{ task_id: id }} = await client.submit("Look", {{ plan: {json.dumps(ledger_call("look"))} }});
await client.approve(id);
const collect = async () => {{
  const frames = [];
  for await (const frame of client.follow(id)) {{
    frames.push(frame);
    if (frame.event === "tool.called") print("called");
  }}
  return frames.filter((frame) => frame.id);
}};
print(await collect());
print(await collect());
print((await client.wait(id)).status);
"""
    service = slow_service(tmp_path, 1, port=free_port())
    with service, node(code, url=service.url or "") as process:
        assert process.stdout
        assert process.stdout.readline() == '"called"\n'
        restarting = threading.Thread(target=service.restart)
        restarting.start()
        printed, said = process.communicate(timeout=2 * PATIENCE_S)
        restarting.join(PATIENCE_S)
    assert process.returncode == 0, said
    first, again, status = [json.loads(line) for line in printed.splitlines() if line != '"called"']
    assert first == again
    assert [frame["event"] for frame in first].count("task.claimed") == 2
    assert status == "completed"


@pytest.mark.slow
def test_a_key_is_needed_that_may_do_it(tmp_path: Path) -> None:
    code = (
        'print(await failure(() => client.submit("Add 1 and 2"))); print(await failure(() => client.wait("task_0")));'
    )
    with serve_with_keys(tmp_path) as house:
        for key, status, name in (("ar_wrong", 401, "key_invalid"), (house.keys["read"], 403, "scope_missing")):
            refused, missing = run(code, url=house.service.url, key=key)
            assert (refused["status"], refused["code"]) == (status, name)
            assert missing["status"] == (401 if status == 401 else 404)


@pytest.mark.slow
def test_a_service_that_is_away_or_full_is_named_after_the_patience_is_over(tmp_path: Path) -> None:
    code = """
const read = async () => { for await (const frame of client.follow("TASK")) print(frame.id); };
for (const work of [() => client.submit("Add"), () => client.wait("TASK"), read]) print(await failure(work));
"""
    answers = run(code, url=f"http://127.0.0.1:{free_port()}", more="awayMs: 300")
    assert [answer["name"] for answer in answers] == ["ServiceUnreachableError"] * 3
    assert "ECONNREFUSED" in answers[0]["message"]
    with Service(tmp_path, limits={"stream_clients": 1}) as service:
        task_id = service.submit(plan=sums(1))
        code = (
            f'print(await failure(async () => {{ for await (const one of client.follow("{task_id}")) print(one); }}));'
        )
        with service.stream(task_id):
            (full,) = run(code, url=service.url, more="awayMs: 200")
    assert (full["status"], full["code"], full["retryAfter"]) == (503, "too_many_streams", 2)


@pytest.mark.slow
def test_the_example_of_the_page_runs_in_node(service: Service, tmp_path: Path) -> None:
    code, shown = re.findall(r"```(?:js|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2]
    if NODE is None:
        pytest.skip("NOT TESTED: the JavaScript client needs node, and this machine has none")
    (tmp_path / "client.js").write_text(service.client.get("/client.js").text, encoding="utf-8")
    own = code.replace("http://127.0.0.1:8000/client.js", "./client.js").replace("http://127.0.0.1:8000", service.url)
    (tmp_path / "example.mjs").write_text(own, encoding="utf-8")
    done = subprocess.run(
        [NODE, "example.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = shown.split("...")[0], shown.split("...")[-1]
    assert done.stdout.startswith(first)
    assert done.stdout.endswith(last)


def test_an_image_of_a_result_is_loaded(tmp_path: Path) -> None:
    with serve_painter(tmp_path) as service:
        task_id = service.complete_task(plan=painting_plan("red"))
        (image,) = images_of(service, task_id)
        code = f"""
const blob = await client.loadImage({json.dumps(task_id)}, {json.dumps(image["digest"])});
print([blob.type, blob.size]);
print((await failure(() => client.loadImage({json.dumps(task_id)}, "sha256:0"))).code);
"""
        assert run(code, url=service.url) == [["image/png", len(RED)], "image_not_found"]
