"""Measures the cost of planning by a model: CPU time per task, and wall time of 20 concurrent tasks, beside two bounds.

The model is the test model server, a process that answers after 200 ms. The bounds ask it the same question, in
processes of their own: a *floor* is one request by httpx with its JSON by orjson, and a *bare run* is `Runner.run` of
openai-agents (or `Runner.run_streamed`). A planned task is a POST, and its stream up to the plan. An agent step is a
ready-made plan of one step: POST, approve, and the stream to its end. In the one, the model requests four calls at once
and then answers (two turns); in the other, it requests three calls one after the other, and answers (four turns). The
rounds are interleaved. The output is medians.

    uv run --with orjson==3.11.4 python benchmarks/planning.py [--rounds 7] [--at-once 20]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from overhead import HERE, Connection, own_cpu_s

sys.path.insert(0, str(HERE.parent / "tests" / "support"))
from model_server import ModelServer
from model_server.replies import Text

SUPPORT = HERE.parent / "tests" / "support"
LATENCY_MS = 200
MOST_WALL_S = 1.5
MOST_PLANNED_MS, MOST_STEP_MS = 8.0, 18.0
PROMPT = "Add 15 and 27, multiply the result by 2, and write it to sum.txt"
AT_ONCE, IN_TURN = "Work out four sums.", "Work out three sums, one after the other."
CALCULATOR = {"server": "calculator", "tool": "evaluate"}
PLAN = {
    "goal": "Calculate (15 + 27) * 2 and save it",
    "steps": [
        {"id": "s1", "title": "Add 15 and 27", "kind": "tool", **CALCULATOR, "arguments": {"expression": "15 + 27"}},
        {
            "id": "s2",
            "title": "Multiply the sum by 2",
            "kind": "tool",
            **CALCULATOR,
            "arguments": {"expression": "${s1.text} * 2"},
        },
        {
            "id": "s3",
            "title": "Write the result to sum.txt",
            "kind": "tool",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "sum.txt", "content": "${s2.text}"},
        },
    ],
}


def sum_call(number: int) -> list[object]:
    return ["calculator__evaluate", {"expression": f"{number} + {number}"}]


RULES = [
    {
        "when": AT_ONCE,
        "by": "turn",
        "replies": [{"calls": [sum_call(number) for number in range(4)]}, {"text": "The sums are 0, 2, 4 and 6."}],
    },
    {
        "when": IN_TURN,
        "by": "turn",
        "replies": [*({"calls": [sum_call(number)]} for number in range(3)), {"text": "The sums are 0, 2 and 4."}],
    },
    {"when": "", "replies": [{"text": json.dumps(PLAN)}]},
]
BUILTINS = [
    {"id": name, "type": "builtin", "config": {"server": name, **more}}
    for name, more in (("calculator", {}), ("filesystem", {"root": "files"}), ("text", {}))
]


def agent_plan(instruction: str) -> dict[str, object]:
    step = {"id": "s1", "kind": "agent", "instruction": instruction, "tools": [{**CALCULATOR, "max_calls": 4}]}
    return {"goal": "Sums", "steps": [step]}


@dataclass(frozen=True)
class Api:
    """A way to use the model, and the number of concurrent tasks."""

    name: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.name}, {'streamed' if self.stream else 'whole'}"


APIS = [Api(name, stream) for name in ("responses", "chat_completions") for stream in (True, False)]


@dataclass(frozen=True)
class Round:
    cpu_ms: float
    """Per run or task."""
    wall_s: float
    """For all runs or tasks together."""


class Measured(NamedTuple):
    """One round of each subject."""

    floor: Round
    bare_run: Round
    planned: Round
    at_once: Round
    in_turn: Round


@contextmanager
def end_on_exit(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def model_server(folder: Path) -> Iterator[str]:
    """Run a model in a process of its own, and yield its base URL."""
    script = folder / "script.json"
    script.write_text(json.dumps(RULES), encoding="utf-8")
    command = [sys.executable, "-m", "model_server", "--port", "0", "--script", str(script)]
    command += ["--delay-ms", str(LATENCY_MS)]
    with end_on_exit(subprocess.Popen(command, cwd=SUPPORT, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout  # noqa: S101 - it is a pipe
        yield process.stdout.readline().strip()


class Bare:
    """The process of one of the bounds."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def measure(self, count: int) -> Round:
        assert self._process.stdin  # noqa: S101 - both are pipes
        assert self._process.stdout  # noqa: S101 - likewise
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        cpu_s, wall_s = json.loads(self._process.stdout.readline() or sys.exit("the process of a bound has ended"))
        return Round(cpu_s * 1000 / count, wall_s)


@contextmanager
def bare(script: str, base_url: str, api: Api, asked: tuple[str, str]) -> Iterator[Bare]:
    instructions, prompt = asked
    given = {"base_url": base_url, "api": api.name, "stream": api.stream}
    told = json.dumps({**given, "instructions": instructions, "prompt": prompt})
    command = [sys.executable, str(HERE / script), told]
    pipe = subprocess.PIPE
    with end_on_exit(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)) as process:
        yield Bare(process)


class Service:
    """A running service that uses the model in one way."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self._port = port

    def measure(self, count: int, instruction: str = "") -> Round:
        """Plan this number of tasks concurrently, or execute as many with one agent step of this instruction."""
        agent = bool(instruction)
        plan = agent_plan(instruction) if agent else None
        body = json.dumps({"prompt": PROMPT, "plan": plan}).encode()
        cpu_s, began = own_cpu_s(self._process.pid), time.perf_counter()
        asyncio.run(self._tasks(body, count, agent=agent))
        wall_s = time.perf_counter() - began
        return Round((own_cpu_s(self._process.pid) - cpu_s) * 1000 / count, wall_s)

    async def _tasks(self, body: bytes, count: int, *, agent: bool) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._task(body, agent=agent))

    async def _task(self, body: bytes, *, agent: bool) -> None:
        control, stream = Connection(self._port), Connection(self._port)
        task_id = (await control.request("POST", "/v1/tasks", body))["task_id"]
        if agent:
            await control.request("POST", f"/v1/tasks/{task_id}/approve")
        reader = await stream.send("GET", f"/v1/tasks/{task_id}/stream")
        await stream.head(reader)
        last = b"event: task.completed" if agent else b"event: plan.proposed"
        while not (line := await reader.readline()).startswith(last):
            if not line or line.startswith(b"event: task.failed"):
                sys.exit(f"a task ended otherwise: {line!r} {await reader.readline()!r}")
        for connection in (control, stream):
            connection.writer.close()


@contextmanager
def service(folder: Path, base_url: str, api: Api) -> Iterator[Service]:
    home = folder / str(api).replace(", ", "-")
    (home / "files").mkdir(parents=True)
    registry = home / "tool_registry.yaml"
    registry.write_text(yaml.safe_dump({"tool_registry": BUILTINS}), encoding="utf-8")
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": base_url,
        "AGENT_RUNTIME_OPENAI__API": api.name,
        "AGENT_RUNTIME_OPENAI__STREAM": str(api.stream).lower(),
        "AGENT_RUNTIME_OPENAI__MODEL": "test-model",
    }
    command = [sys.executable, "-m", "agent_runtime", "serve", "--port", "0", "--registry", str(registry)]
    command += ["--data-dir", str(home / "data")]
    with (home / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stderr=log, text=True)
    with end_on_exit(process):
        lock = home / "data" / "agent-runtime.lock"
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            content = json.loads(lock.read_text(encoding="utf-8") or "{}") if lock.exists() else {}
            if url := content.get("url"):
                yield Service(process, int(url.rpartition(":")[2]))
                return
            time.sleep(0.05)
        sys.exit(f"the service did not start: {(home / 'log.txt').read_text(encoding='utf-8')}")


def capture_prompt(folder: Path) -> tuple[str, str]:
    """Return the instructions and the prompt that the service sends."""
    with ModelServer() as models:
        models.on("", Text(json.dumps(PLAN)))
        with service(folder / "first", models.base_url, APIS[0]) as asking:
            asking.measure(1)
        (request,) = models.find_requests()
        return request.system, request.prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="words that the names of the ways to ask contain")
    options = parser.parse_args()
    apis = [api for api in APIS if all(word in str(api) for word in options.only)]
    count = options.at_once
    rows = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        base_url = stack.enter_context(model_server(folder))
        asked = capture_prompt(folder)
        for api in apis:
            with (
                bare("bare_requests.py", base_url, api, asked) as floor,
                bare("bare_runs.py", base_url, api, asked) as runs,
                service(folder, base_url, api) as tasks,
            ):
                measured = [
                    Measured(
                        floor.measure(count),
                        runs.measure(count),
                        tasks.measure(count),
                        tasks.measure(count, AT_ONCE),
                        tasks.measure(count, IN_TURN),
                    )
                    for _ in range(options.rounds + 2)
                ]
                rows[api] = measured[2:]  # the others are warm-up: imports, connections and the registry
    print_table(count, rows)


def print_table(count: int, rows: dict[Api, list[Measured]]) -> None:
    load = os.getloadavg()[0]
    rounds = max(map(len, rows.values()))
    print(f"{count} at once, a model of {LATENCY_MS} ms, medians of {rounds} rounds, load {load:.1f}; CPU ms, wall s")
    print(f"{'':27}{'floor':>6}{'bare run':>16}{'planned task':>41}{'agent step of two turns, of four':>38}")
    print(
        f"{'':27}{'CPU':>6}{'CPU':>8}{'wall':>8}{'CPU':>8}{'(min-max)':>11}{'wall':>6}{'x floor':>8}{'x bare':>8}",
        end="",
    )
    print(f"{'CPU':>14}{'x floor':>8}{'CPU':>8}{'x floor':>8}")
    kept = True
    for api, measured in rows.items():
        floor, runs, tasks, at_once, in_turn = (list(column) for column in zip(*measured, strict=True))
        least, bare_ms, task_ms = (middle(column, "cpu_ms") for column in (floor, runs, tasks))
        spread = f"{min(r.cpu_ms for r in tasks):.0f}-{max(r.cpu_ms for r in tasks):.0f}"
        wall_s = middle(tasks, "wall_s")
        print(f"{api!s:27}{least:6.1f}{bare_ms:8.1f}{middle(runs, 'wall_s'):8.2f}{task_ms:8.1f}{spread:>11}", end="")
        print(f"{wall_s:6.2f}{task_ms / least:8.1f}{task_ms / bare_ms:8.2f}", end="")
        print(f"{middle(at_once, 'cpu_ms'):14.1f}{middle(at_once, 'cpu_ms') / least / 2:8.1f}", end="")
        print(f"{middle(in_turn, 'cpu_ms'):8.1f}{middle(in_turn, 'cpu_ms') / least / 4:8.1f}")
        step_ms = max(middle(at_once, "cpu_ms"), middle(in_turn, "cpu_ms"))
        kept = kept and wall_s < MOST_WALL_S and task_ms < MOST_PLANNED_MS and step_ms < MOST_STEP_MS
    print("x floor of an agent step: one floor for each of its turns.")
    print(
        f"Targets: a plan in {MOST_WALL_S} s and {MOST_PLANNED_MS:.0f} ms CPU, a step in {MOST_STEP_MS:.0f} ms: ",
        end="",
    )
    print("met" if kept else "missed")


def middle(rounds: list[Round], field: str) -> float:
    return float(statistics.median(getattr(r, field) for r in rounds))


if __name__ == "__main__":
    main()
