"""Measures the cost of one task: CPU time of the service and its children, throughput and latency, against a floor.

A task is a ready-made plan of three echo calls: POST, approve, and the stream to its end. Every subject runs in its own
process on loopback, and the client in this one. The rounds of the subjects are interleaved. The output is medians.
With one task at a time, "task scope, spares" rests before each until the spare has started; rests are not measured.
With 20 at once nobody rests, and few tasks get a spare.

    uv run python benchmarks/overhead.py [--tasks 200] [--rounds 5]
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
REST_S, QUIET_S, IDLE_S = 30.0, 0.6, 2.0
ECHO = {"command": sys.executable, "args": [str(HERE / "echo_server.py")]}


@dataclass(frozen=True)
class Subject:
    """A subject of the measurement: its name, its plan, and its registry entry. `rests`: a task waits for a spare."""

    name: str
    server: str
    tool: str
    arguments: dict[str, str]
    registry: Mapping[str, object] | None
    rests: bool = False


def echo_subject(name: str, scope: str, spares: int = 0) -> Subject:
    entry = {"id": "echo", "type": "local_stdio", "scope": scope, "spares": spares, "config": ECHO}
    return Subject(name, "echo", "echo", {"message": "hello"}, entry, rests=bool(spares))


SUBJECTS = (
    Subject("floor", "echo", "echo", {"message": "hello"}, None),
    echo_subject("shared stdio", "shared"),
    Subject(
        "built-in",
        "text",
        "count_words",
        {"text": "hello"},
        {"id": "text", "type": "builtin", "config": {"server": "text"}},
    ),
    echo_subject("task scope", "task"),
    echo_subject("task scope, spares", "task", spares=1),
)


@dataclass(frozen=True)
class Round:
    cpu_ms: float
    children_ms: float
    per_second: float
    p50_ms: float
    p95_ms: float


class Service:
    """The running process of a subject."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if subject.registry is None:
            command = [sys.executable, str(HERE / "floor.py"), str(self.port), str(folder / "floor.db")]
        else:
            registry = folder / "tool_registry.yaml"
            registry.write_text(yaml.safe_dump({"tool_registry": [dict(subject.registry)]}), encoding="utf-8")
            command = [sys.executable, "-m", "agent_runtime", "serve", "--port", str(self.port)]
            command += ["--registry", str(registry), "--data-dir", str(folder / "data")]
        environment = {**os.environ, "LOG_LEVEL": "WARNING"}
        self.process = subprocess.Popen(command, env=environment, cwd=folder)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        sys.exit(f"{self.subject.name} did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def cpu_s(self) -> float:
        return own_cpu_s(self.process.pid)

    def children_cpu_s(self) -> float:
        """Return the CPU seconds of the living descendants and of those that have been reaped."""
        fields = stat(self.process.pid)
        reaped = (int(fields[13]) + int(fields[14])) / TICKS
        return reaped + sum(own_cpu_s(pid) + reaped_cpu_s(pid) for pid in descendants(self.process.pid))


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def own_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process: of its living threads in nanoseconds, plus the total of ended threads."""
    try:
        fields = stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def reaped_cpu_s(pid: int) -> float:
    try:
        fields = stat(pid)
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / TICKS


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from descendants(child)


class Connection:
    """A minimal keep-alive HTTP/1.1 connection, so that the client costs little."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.used_at = 0.0

    async def send(self, method: str, path: str, body: bytes = b"") -> asyncio.StreamReader:
        if time.monotonic() - self.used_at > IDLE_S:  # the server may be about to close it
            self.close()
        if self.reader is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.used_at = time.monotonic()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        if body:
            head += "Content-Type: application/json\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)
        return self.reader

    async def head(self, reader: asyncio.StreamReader) -> tuple[int, int]:
        """Return the status and the content length of the next response."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        return int(head.split(b" ", 2)[1]), int(length or 0)

    async def request(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        reader = await self.send(method, path, body)
        status, length = await self.head(reader)
        content = await reader.readexactly(length)
        if status >= 400:
            sys.exit(f"{method} {path}: {status} {content.decode()}")
        parsed: dict[str, str] = json.loads(content)
        return parsed

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.reader = None

    async def follow(self, path: str) -> None:
        """Read a stream to its `[DONE]`."""
        reader = await self.send("GET", path)
        await self.head(reader)
        await reader.readuntil(b"[DONE]")
        await reader.readuntil(b"0\r\n\r\n")


def plan_of(subject: Subject) -> bytes:
    steps = [
        {
            "id": f"s{number}",
            "kind": "tool",
            "server": subject.server,
            "tool": subject.tool,
            "arguments": subject.arguments,
            "depends_on": [f"s{number - 1}"] if number > 1 else [],
        }
        for number in (1, 2, 3)
    ]
    return json.dumps({"prompt": "three calls", "plan": {"goal": "three calls", "steps": steps}}).encode()


async def one_task(control: Connection, stream: Connection, body: bytes) -> float:
    began = time.perf_counter()
    task = await control.request("POST", "/v1/tasks", body)
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.follow(f"/v1/tasks/{task['task_id']}/stream"))
        await control.request("POST", f"/v1/tasks/{task['task_id']}/approve")
    return (time.perf_counter() - began) * 1000


async def rest(service: Service) -> None:
    """Wait until the children of the service have done nothing for a while: the next spare is ready."""
    deadline = time.monotonic() + REST_S
    before, now = -1.0, service.children_cpu_s()
    while time.monotonic() < deadline and before != now:
        await asyncio.sleep(QUIET_S)
        before, now = now, service.children_cpu_s()


async def many_tasks(service: Service, count: int, at_once: int) -> list[float]:
    body = plan_of(service.subject)
    latencies: list[float] = []
    left = iter(range(count))

    async def customer() -> None:
        control, stream = Connection(service.port), Connection(service.port)
        for _ in left:
            if service.subject.rests and at_once == 1:
                control.close()
                stream.close()
                await rest(service)
            latency = await one_task(control, stream, body)
            latencies.append(latency)
        control.close()
        stream.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(customer())
    return latencies


def measure(service: Service, count: int, at_once: int) -> Round:
    cpu, children, began = service.cpu_s(), service.children_cpu_s(), time.perf_counter()
    latencies = sorted(asyncio.run(many_tasks(service, count, at_once)))
    rested = service.subject.rests and at_once == 1
    seconds = sum(latencies) / 1000 if rested else time.perf_counter() - began
    return Round(
        cpu_ms=(service.cpu_s() - cpu) * 1000 / count,
        children_ms=(service.children_cpu_s() - children) * 1000 / count,
        per_second=count / seconds,
        p50_ms=latencies[len(latencies) // 2],
        p95_ms=latencies[int(len(latencies) * 0.95)],
    )


@contextmanager
def run_service(subject: Subject) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(subject, Path(folder))
        try:
            service.wait_until_ready()
            asyncio.run(many_tasks(service, 10, 1))
            yield service
        finally:
            service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200, help="tasks in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of subjects; the floor is always measured")
    arguments = parser.parse_args()
    subjects = [s for s in SUBJECTS if not arguments.only or s.name in {*arguments.only, "floor"}]
    for at_once in (1, 20):
        rounds: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
        with ExitStack() as stack:
            services = [stack.enter_context(run_service(subject)) for subject in subjects]
            for _ in range(arguments.rounds):
                for service in services:
                    # A new process for each task costs much more than the rest, so fewer tasks suffice.
                    count = max(at_once, 20) if service.subject.name.startswith("task scope") else arguments.tasks
                    rounds[service.subject.name].append(measure(service, count, at_once))
        print_table(at_once, rounds)


def print_table(at_once: int, rounds: dict[str, list[Round]]) -> None:
    print(f"\n{at_once} at once, medians of {len(rounds['floor'])} rounds")
    print(
        f"{'':20}{'CPU ms':>8}{'x floor':>9}{'(min-max)':>14}{'children':>10}{'tasks/s':>9}{'p50 ms':>8}{'p95 ms':>8}"
    )
    floor = statistics.median(r.cpu_ms for r in rounds["floor"])
    for name, measured in rounds.items():
        cpu = statistics.median(r.cpu_ms for r in measured)
        spread = f"{min(r.cpu_ms for r in measured):.1f}-{max(r.cpu_ms for r in measured):.1f}"
        children, per_second, p50, p95 = (
            statistics.median(getattr(r, field) for r in measured)
            for field in ("children_ms", "per_second", "p50_ms", "p95_ms")
        )
        print(f"{name:20}{cpu:8.2f}{cpu / floor:9.2f}{spread:>14}{children:10.2f}{per_second:9.1f}{p50:8.1f}{p95:8.1f}")


if __name__ == "__main__":
    main()
