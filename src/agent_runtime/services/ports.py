"""The interfaces that the services need, each a small Protocol. Adapters have the shape and inherit nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, Literal, Protocol

from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.events import Event, EventRecord
from agent_runtime.domain.feed import FeedEntry
from agent_runtime.domain.images import Image
from agent_runtime.domain.listings import Listing
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, ModelStatus
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.planning_attempts import PlanningAttempt
from agent_runtime.domain.sharing import FleetFigures, SharingFigures
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.summaries import Page
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition, Offer, StoredResult, ToolDefinition, ToolServer
from agent_runtime.domain.values import JsonObject
from agent_runtime.live.breaker import CircuitState
from agent_runtime.live.patience import Patience
from agent_runtime.states.saved import StateStore


class SchemaJudge(Protocol):
    """Judges the schemas of servers where they can neither stall nor crash the service."""

    async def judge(self, schemas: Sequence[JsonObject]) -> list[str | None]:
        """Return one verdict for each schema, in order: None if it can be used, else the reason.

        The list is shorter if the rest could not be judged now.
        """


AppendObserver = Callable[[Task, Sequence[EventRecord], float], None]
"""Called after each append, once it is durable, with the new state of the task, its records, and the
seconds it took.
"""


class TaskStore(Protocol):
    """The journal. `append` is the only write to a task, and is durable when it returns (G1)."""

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        """Add events to the journal of `task`, whose `version` is the expected one, and return the state after them.

        All events are written, or none. `epoch` is the run's, or None for a decision from outside. Version 0 creates
        the task.
        Raises: ConflictError where the journal is at another version, where the submitter has used this `request_key`
        already, and where a claim or an event from outside meets a journal that was changed; StaleEpochError where a
        newer claim owns the task (a late `tool.returned`, alone, is kept); IllegalTransitionError where the domain
        forbids an event; JournalChangedError where the task is known for a changed journal (`journal_change`);
        StoreUnavailableError where nothing could be written.
        """

    async def load(self, task_id: str) -> Task:
        """Return the state of a task. If its journal was tampered with, `journal_change` says so, and the other fields
        hold what could be folded.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    async def find_request(self, submitter: str, request_key: str) -> Task | None:
        """Return the task that this submitter created with this idempotency key, if any."""

    async def records(
        self, task_id: str, after: int = 0, limit: int = 1000, *, newest: bool = True
    ) -> list[EventRecord]:
        """Return the records after number `after`, in order, at most `limit`. With `newest` False the last may be
        missing, but only where there are others: for those who come again.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    async def load_stored_journal(self, task_id: str) -> StoredJournal:
        """Return everything stored of a task as raw values, for the audit.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    def watch(self, task_id: str) -> AbstractContextManager[object]:
        """Return a context in which a process that shares the store remembers what it hears of the task, so that
        `wait_for_change` need not read where the journal ends each time.
        """

    async def wait_for_change(self, task_id: str, after: int) -> None:
        """Wait until the journal has grown beyond number `after`, or the task is gone. Does not poll."""

    async def wait_for_cancellation(self, task_id: str) -> None:
        """Wait until the journal holds a cancellation, or the task is gone. Does not poll. Raises:
        StoreUnavailableError.
        """

    async def subscribe(
        self, after: str | None = None, *, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        """Return the feed of all tasks after a cursor, in the order of the commits: stored pages first, then live.
        Never polls.

        Without a cursor the feed begins with the oldest entry; with `NEWEST`, after the newest one, with a checkpoint.
        It lasts until the store closes. With `idle_s`, it yields an empty page whenever nothing has happened for that
        many seconds. Events of deleted tasks and of changed
        journals are left out; a deleted task has a `Tombstone` at its deletion. Cursors stay valid over deletions,
        restarts and checkpoints; one that points to dropped rows gets a `FeedCheckpoint`, from which the feed starts
        again.
        Raises: InvalidInputError for an invalid cursor. Iterating raises: StoreUnavailableError without `idle_s`; with
        it, empty pages come until the outage is over.
        """

    async def commit_head(self) -> CommitHead:
        """Return the newest commit, whose hash proves all before it. Raises: StoreUnavailableError."""

    async def checkpoint(self, *, drop: bool = False) -> None:
        """Name the heads of all journals in one commit; with `drop`, forget the commits before it.

        Raises: StoreUnavailableError.
        """

    async def page(
        self, status: TaskStatus | None = None, limit: int = 50, cursor: str | None = None, thread: str | None = None
    ) -> Page:
        """Return a page of tasks, newest first. Raises: InvalidInputError for an invalid cursor."""

    async def count(self) -> Mapping[TaskStatus, int]:
        """Return how many tasks there are in each status that occurs. Where there are very many, the answer may be some
        seconds old. Raises: StoreUnavailableError.
        """

    @property
    def states(self) -> StateStore:
        """The states of front ends, in the same database."""

    @property
    def sharing(self) -> SharingFigures | None:
        """The part of this process in a store that several share; None where it is the only one."""

    async def measure_fleet(self) -> FleetFigures | None:
        """Return the figures of all processes that share the store; None likewise. Raises: StoreUnavailableError."""

    async def list_ended(self, status: TaskStatus, before: datetime, limit: int) -> list[str]:
        """Return the tasks in this final status whose last event is older than `before`, those created first at first.

        Raises: StoreUnavailableError.
        """

    async def list_unfinished(self) -> list[str]:
        """Return the ids of the tasks that a runner should resume: those that are open and wait for no person, those
        that are being cancelled, and those with an open question of a server, whose call may be lost.
        """

    async def starts(self) -> dict[str, int]:
        """Return by task id how many of the last starts in a row resumed the task without progress. Tasks with progress
        are left out.
        """

    async def note_starts(self, task_ids: Collection[str]) -> None:
        """Count one more start for these tasks. Call it before they are resumed."""

    async def forget_starts(self) -> None:
        """Reset all counts, because the service stops in order."""

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        """Return the tasks that await approval and when each plan was made, oldest first. Tasks whose journal was
        tampered with are left out.
        """

    async def delete(self, task: Task) -> None:
        """Delete a terminal task, or one with a changed journal.

        Raises: TaskNotFoundError, ConflictError, StoreUnavailableError.
        """

    async def save_planning_attempt(self, task_id: str, attempt: PlanningAttempt) -> None:
        """Keep an attempt with its task, beside the journal; the oldest beyond `MOST_KEPT` are dropped. Nothing is kept
        of a task that is gone. Raises: StoreUnavailableError.
        """

    async def load_planning_attempts(self, task_id: str) -> list[tuple[int, PlanningAttempt]]:
        """Return the attempts of a task in order, each with its number, from 1; those that cannot be read are left out.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    async def save_images(self, task_id: str, images: Sequence[Image], most_bytes: int) -> frozenset[str]:
        """Add images to those of a task, up to `most_bytes` in all, and return the digests of all that it has now; none
        if the task is gone. They are durable when it returns. Raises: StoreUnavailableError.
        """

    async def load_image(self, task_id: str, digest: str) -> Image | None:
        """Return an image of a task; None if there is none, or if it was changed. Raises: StoreUnavailableError."""

    async def save_definitions(self, identity: str, definitions: Sequence[JudgedDefinition]) -> None:
        """Store the definitions that a server of this identity listed, in place of earlier ones."""

    async def load_definitions(self, identity: str) -> list[JudgedDefinition] | None:
        """Return the definitions that a server of this identity listed last; None if none can be read."""

    async def check(self) -> None:
        """Check that the store can be written (G16): try a write, unless one has succeeded within the last second.

        Raises: StoreUnavailableError.
        """


class Catalogue(Protocol):
    """The newest listing of each MCP server, by a key that its registry entry has on every replica.

    Where replicas share a database they share the listings: one at a time asks a server, and the others take what it
    has stored. `asks` is False for a replica that starts no servers: it has others ask them.
    """

    asks: bool

    async def obtain(
        self, key: str, ask: Callable[[], Awaitable[Listing]], age_s: float = inf, *, compared: bool = False
    ) -> Listing:
        """Return a listing that is at most `age_s` seconds old, or newer than the last request of another replica.

        If none is stored, `ask` and store it; where another replica asks just now, wait for its listing instead. With
        `compared`, the listing is one after two lists were compared, if the server could be asked. During an outage of
        the store this waits. Raises: what `ask` raises; then nothing is stored.
        """

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Register `tell`, which is called with the key of a listing that another replica has stored or wants."""


class Fleet(Protocol):
    """The other workers that run the tasks of this service, and the registry entries that each of them has."""

    async def has_entries(self, contract: Contract) -> bool:
        """Return whether another living worker has all entries, and the model, that the contract is pinned to.

        Raises: StoreUnavailableError.
        """

    async def hand_over(self, task_id: str, contract: Contract) -> bool:
        """Have another worker run the task, if it has all entries that the contract is pinned to and this process has
        not. Return whether it will. Raises: StoreUnavailableError.
        """


class Runner(Protocol):
    """Runs tasks. Waking one twice, late or on two machines at once is safe; see `Orchestrator`."""

    async def wake(self, task_id: str) -> None:
        """Have the task run soon; if it is running now, have it run once more."""

    async def cancel(self, task_id: str) -> None:
        """Tell the run of this task that a cancellation is in the journal; if there is no run, wake the task."""

    @property
    def queue(self) -> Mapping[str, int]:
        """The number of tasks that run (`running`), wait for a slot (`waiting`), pause after a failure (`resting`) and
        wait for the end of an outage (`in_outage`).
        """


ConfirmClaims = Callable[[], Awaitable[bool]]
"""Returns whether the claims of this process are surely valid now, so that no other process runs its tasks."""


class Planner(Protocol):
    """Turns a prompt into a plan. The contract judges the answer; nobody trusts it.

    `name` identifies the planner in the journal. `needs_model` is True if it cannot plan without a model.
    `builtin_first` is True if it tries the built-in servers alone first, because others take time to start; where those
    do not suffice, it raises MissingToolError.
    """

    name: str
    needs_model: bool
    builtin_first: bool

    @property
    def revision_help(self) -> str | None:
        """A sentence for people on what feedback on a plan it understands; None if it reads any."""

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return a plan for the prompt and the feedback.

        Raises: PlanningError naming the part that cannot be planned, what can be done, and what to configure.
        """


class LanguageModel(Protocol):
    """A language model. Its answers are proposals; the adapter carries out nothing of them."""

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """Return the model's whole answer. Requests may run side by side; a cancelled one is closed.

        Raises: ModelError after the last retry.
        """

    async def identify(self) -> str:
        """Return the model's name. Where the settings name none, the endpoint is asked which one it has now.

        Raises: ModelError.
        """

    def status(self) -> ModelStatus: ...


class Lease(Protocol):
    """The sessions that one run of a task may use, until the lease ends."""

    async def definitions(self, server_id: str) -> Mapping[str, ToolDefinition]:
        """List the tools in this session now, without a cache, and return them by name (G6). Raises:
        ServerUnavailableError.
        """

    async def renew(self, server_id: str) -> None:
        """Replace a session that the server does not know any more. Raises: ServerUnavailableError."""

    def has_changed(self, server_id: str) -> bool:
        """Return whether the server has sent `tools/list_changed` since this lease last listed its tools."""

    async def call(
        self,
        server_id: str,
        tool: str,
        arguments: JsonObject,
        *,
        timeout_s: float,
        cancel: asyncio.Event,
        patience: Patience | None = None,
    ) -> StoredResult:
        """Send one call and return its whole result, uncut. An error of the tool is a result.

        Never sends a call twice. The call is cancelled once `cancel` is set, or `timeout_s` after it was sent or last
        reported progress, as far as `patience` allows: the server is told, and has 5 s left to answer. An answer that
        cannot be read at all is an error result with `unreadable`.
        Raises: CallNotSentError where the call certainly never left, SessionLostError where the server refused it
        unseen because it does not know the session, OutcomeUnknownError where it left and no answer came.
        """


class ToolServers(Protocol):
    """The MCP servers, as processes and connections. Those of scope `task` have ended after their lease (G10)."""

    async def discover(self, server: ToolServer) -> Offer:
        """Start or connect to the server, list its tools, and release it. Raises: ServerUnavailableError."""

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Register `tell`, which is called with the id of a shared server that announces a change of its tools."""

    def lease(self, servers: Iterable[ToolServer]) -> AbstractAsyncContextManager[Lease]:
        """Return a context with sessions for exactly these servers. Entering raises: ServerUnavailableError."""

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        """The circuits of the servers that were started so far, by id. A server with an `open` one is not started for a
        while.
        """

    @property
    def connections(self) -> Counter[str]:
        """The number of connections of each server by its id, counted from their start until their
        processes are gone. Spares are not among them.
        """

    @property
    def spares(self) -> Counter[str]:
        """The number of spare processes of each server by its id, counted from their start until they are gone."""

    def read_stderr(self, server_id: str) -> str:
        """Return the end of what the newest process of a server wrote to its stderr, redacted: up to 2,000 characters.

        While the newest has written nothing, that of the process before is returned. Empty for servers without a
        process of our own, and for those that were never started.
        """


SocketName = tuple[Any, ...]
"""A host and a port, as `getpeername` returns them; for IPv6 the flow and the interface too."""


@dataclass(frozen=True, slots=True)
class PeerRefusal:
    """The reason why a caller may not use the service without a key, and the id of its process, if found.

    `started_by_service`: the process was started by this one, or by a descendant of it. `gone`: the caller has closed
    its end of the connection. `unseen`: the process cannot be seen and may be a descendant; `error` says what could not
    be read.
    """

    reason: Literal["started_by_service", "gone", "unseen"]
    pid: int | None = None
    error: str | None = None


class PeerCheck(Protocol):
    """Refuses processes that the service started: they may not use it without a key (G14)."""

    def refuse(self, client: SocketName, server: SocketName) -> PeerRefusal | None:
        """Return why the process at the other end of this TCP connection may not use the service; None where it may.

        Blocks for some milliseconds. Call it in a thread of the service's own process, once for each connection.
        """
