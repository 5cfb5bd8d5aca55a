"""Users who submit and approve tasks at several replicas, while replicas, connections and the database fail."""

import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import httpx2

from harness import ledger_plan
from postgres_server import PostgresServer
from replica_processes import Replica
from waiting import eventually_sync

STEPS = 3
TOOLS = ("count", "look")
PAUSE_S = 16.0
"""How long a replica is stopped: longer than the limit of the heartbeat."""

_PATIENCE_S = 240.0
_AGAIN_S = 0.2
_USERS = 12
_CUT = """
SELECT pg_terminate_backend(pid, 5000) FROM (
    SELECT pid FROM pg_stat_activity
    WHERE query ~* '^LISTEN |FROM pending_commits\\)$' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1
) AS chosen
"""


@dataclass(frozen=True, slots=True)
class Havoc:
    """The number of times that each thing happens."""

    tasks: int
    kills: int
    pauses: int
    restarts: int
    cuts: int


class Users:
    """Users of all replicas. A user sends a request again, to any replica, until it was acknowledged."""

    def __init__(self, replicas: Sequence[Replica], seed: int) -> None:
        self.submitted: dict[str, str] = {}
        """The tool of each task whose submission was acknowledged, by id."""
        self.approved: set[str] = set()
        self.keys: set[str] = set()
        self.refusals: list[str] = []
        """Answers that no user should get, whatever fails."""
        self._urls = [f"http://127.0.0.1:{replica.port}" for replica in replicas]
        self._seed = seed
        self._lock = threading.Lock()
        self._numbers = count()
        self._wanted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(_USERS)]
        for thread in self._threads:
            thread.start()

    def want(self, tasks: int) -> None:
        """Have so many more tasks submitted and approved."""
        for number in islice(self._numbers, tasks):
            self._wanted.put(number)

    def finish(self) -> None:
        """Wait until all of that is acknowledged."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, user: int) -> None:
        choices = random.Random(f"{self._seed}-{user}")  # noqa: S311 - repeatable, not secret
        with httpx2.Client(timeout=3) as client:
            while (number := self._wanted.get()) is not None:
                self._submit_and_approve(client, choices, number)

    def _submit_and_approve(self, client: httpx2.Client, choices: random.Random, number: int) -> None:
        tool, key = TOOLS[number % len(TOOLS)], f"task-{number}"
        labels = [f"{number}-{step}" for step in range(STEPS)]
        body = {"prompt": "count", "plan": ledger_plan(*labels, tool=tool).model_dump(mode="json")}
        answer = self._insist(client, choices, "/v1/tasks", body, {"Idempotency-Key": key})
        if answer is None:
            return
        task_id = str(answer.json()["task_id"])
        with self._lock:
            self.submitted[task_id] = tool
            self.keys.add(key)
        if self._insist(client, choices, f"/v1/tasks/{task_id}/approve", {}, {}) is not None:
            with self._lock:
                self.approved.add(task_id)

    def _insist(
        self, client: httpx2.Client, choices: random.Random, path: str, body: Any, headers: dict[str, str]
    ) -> httpx2.Response | None:
        """Send a request to one replica after another until one acknowledges it. 409: it was done before."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                response = client.post(choices.choice(self._urls) + path, json=body, headers=headers)
            except httpx2.TransportError:
                time.sleep(_AGAIN_S)  # killed, stopped or starting
                continue
            if response.status_code == 202 or (response.status_code == 409 and path.endswith("/approve")):
                return response
            if response.status_code != 503:
                break
            time.sleep(_AGAIN_S)
        else:
            response = None
        with self._lock:
            self.refusals.append(f"{path}: {response.status_code} {response.text}" if response else f"{path}: nothing")
        return None


class Fate:
    """Kills and stops replicas, cuts connections and restarts the database, while users work."""

    def __init__(self, replicas: Sequence[Replica], postgres: PostgresServer, seed: int) -> None:
        self._replicas = replicas
        self._postgres = postgres
        self._choices = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._paused: dict[Replica, float] = {}
        self._peace_s = measure_life_s(replicas[0])
        self.cut = 0

    def strike(self, havoc: Havoc, users: Users) -> None:
        """Do all of that, spread evenly over the kills."""
        for kill in range(havoc.kills):
            users.want(_share(havoc.tasks, kill, havoc.kills))
            self._cut_until((kill + 1) * havoc.cuts // havoc.kills)
            for _ in range(_share(havoc.restarts, kill, havoc.kills)):
                self._postgres.restart()
            for _ in range(_share(havoc.pauses, kill, havoc.kills)):
                self._pause_one()
            self._kill_one()
        while self.cut < havoc.cuts:
            eventually_sync(lambda: self._postgres.execute(_CUT), _PATIENCE_S)
            self.cut += 1
        for replica in list(self._paused):
            time.sleep(max(0.0, self._paused[replica] - time.monotonic()))
            self._resume()

    def _cut_until(self, due: int) -> None:
        """Cut connections until so many were. While all replicas start there is none to cut: those wait for the end."""
        while self.cut < due and self._postgres.execute(_CUT):
            self.cut += 1

    def _kill_one(self) -> None:
        time.sleep(self._choices.uniform(0, self._peace_s))
        self._resume()
        deadline = time.monotonic() + _PATIENCE_S
        while not (alive := [replica for replica in self._replicas if replica not in self._paused and is_up(replica)]):
            self._resume()
            assert time.monotonic() < deadline, "no replica has started again"
            time.sleep(0.05)
        replica = self._choices.choice(alive)
        replica.kill()
        replica.launch()

    def _pause_one(self) -> None:
        running = [replica for replica in self._replicas if replica not in self._paused]
        if len(running) > 1:  # one is left to be killed
            replica = self._choices.choice(running)
            replica.pause()
            self._paused[replica] = time.monotonic() + PAUSE_S

    def _resume(self) -> None:
        for replica, until in list(self._paused.items()):
            if time.monotonic() >= until:
                del self._paused[replica]
                replica.resume()


def measure_life_s(replica: Replica) -> float:
    """Return the seconds in which a replica starts and carries out a task on this machine, as busy as it is."""
    replica.kill()
    began = time.monotonic()
    replica.start()
    replica.until_settled(replica.submit_and_approve("measured"))
    return time.monotonic() - began


def is_up(replica: Replica) -> bool:
    """Return whether the process of a replica answers."""
    try:
        return replica.client.get("/healthz", timeout=1).status_code == 200
    except httpx2.TransportError:
        assert replica.process
        assert replica.process.poll() is None, replica.log.read_text(encoding="utf-8")[-4000:]
        return False


def _share(total: int, index: int, count: int) -> int:
    """Return how many of `total` things belong to this one of `count` turns."""
    return total * (index + 1) // count - total * index // count
