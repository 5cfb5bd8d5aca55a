"""What the services need from the outside, each as a small Protocol. Adapters have the shape and inherit nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from agent_runtime.domain.commits import CommitHead
from agent_runtime.domain.errors import Fault
from agent_runtime.domain.events import Event, EventRecord
from agent_runtime.domain.feed import FeedEntry
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, ModelStatus, ignore_text
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TERMINAL, TaskStatus
from agent_runtime.domain.stored_journal import StoredJournal
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import JudgedDefinition, Offer, StoredResult, Tool, ToolDefinition, ToolServer
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import JsonObject


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """A row of the list of tasks, kept beside the journal in the same transaction."""

    task_id: str
    status: TaskStatus
    prompt: str
    plan_revision: int
    cancel_requested: bool
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


PAGE_BYTES = 1024 * 1024
"""How long a page is when nothing further is put on it."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of tasks, newest first. `next_cursor` is opaque; None on the last page.

    It ends with the task that makes it longer than `PAGE_BYTES`.
    """

    tasks: tuple[TaskSummary, ...]
    next_cursor: str | None


class SchemaJudge(Protocol):
    """Who judges the schemas of servers, where they can stall or kill nobody."""

    async def judge(self, schemas: Sequence[JsonObject]) -> list[str | None]:
        """Return the verdicts of the first so many schemas: why one cannot be used, `None` where it can.

        Those after them could not be judged now.
        """


AppendObserver = Callable[[Task, Sequence[EventRecord], float], None]
"""Told of each append once it is durable: the task after it, its records, and how many seconds it took."""


class TaskStore(Protocol):
    """The journal. `append` is the only write to a task, and is durable when it returns (G1)."""

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        """Add events to the journal of `task`, whose `version` is the expected one, and return the state after them.

        All or nothing. `epoch` is the run's, null for a decision from outside; version 0 creates the task.
        Raises: ConflictError where the journal is not at that version, StaleEpochError where a newer claim owns
        the task (but a late `tool.returned`, alone, is kept), IllegalTransitionError where the domain forbids it,
        StoreUnavailableError where nothing could be written. A creation whose `request_key` exists already with
        the same submitter is a ConflictError too, and so is a claim or an event from outside on a journal that was
        changed. A task that says so itself (`journal_change`) takes nothing: JournalChangedError.
        """

    async def load(self, task_id: str) -> Task:
        """The state of a task; of one whose journal was changed, its `journal_change`, and what could be folded.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    async def find_request(self, submitter: str, request_key: str) -> Task | None:
        """Return the task that this submitter created with this idempotency key, if any."""

    async def records(self, task_id: str, after: int = 0, limit: int = 1000) -> list[EventRecord]:
        """The journal after event number `after`, in order. Raises: TaskNotFoundError, StoreUnavailableError."""

    async def load_stored_journal(self, task_id: str) -> StoredJournal:
        """Return all that is stored of a task, unread and unjudged, for the audit.

        Raises: TaskNotFoundError, StoreUnavailableError.
        """

    async def wait_for_change(self, task_id: str, after: int) -> None:
        """Return once the journal has grown beyond event number `after`, or the task is gone; without polling."""

    async def subscribe(
        self, after: str | None = None, *, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
        """Return the feed of all tasks after a cursor, in the order of the commits: pages, then live, without polling.

        Without a cursor it is all that there is. It lasts until the store closes; with `idle_s`, an empty page each
        time that nothing happens for so many seconds. Events of deleted tasks, and of journals that were changed, are
        left out; a deleted task has its `Tombstone` where it was deleted. Cursors stay valid, over deletions, restarts
        and checkpoints: one from before the rows that were dropped gets a `FeedCheckpoint` that restarts.
        Raises: InvalidInputError for a cursor that is none of ours. The feed raises: StoreUnavailableError.
        """

    async def commit_head(self) -> CommitHead:
        """Return the newest commit, whose hash proves all before it. Raises: StoreUnavailableError."""

    async def checkpoint(self, *, drop: bool = False) -> None:
        """Name the heads of all journals in one commit; with `drop`, forget the commits before it.

        Raises: StoreUnavailableError.
        """

    async def page(self, status: TaskStatus | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """Tasks, newest first. Raises: InvalidInputError for a cursor that is none of ours."""

    async def count(self) -> Mapping[TaskStatus, int]:
        """Return how many tasks there are in each status that occurs. Raises: StoreUnavailableError."""

    async def list_unfinished(self) -> list[str]:
        """The ids of the tasks that a runner should take up: open and asking nobody, or being cancelled."""

    async def starts(self) -> dict[str, int]:
        """In how many starts in a row each task was taken up without getting on; those that got on are missing."""

    async def note_starts(self, task_ids: Collection[str]) -> None:
        """Count one more start for these tasks, before they are taken up."""

    async def forget_starts(self) -> None:
        """Count from the beginning: the service stops in order."""

    async def list_awaiting_approval(self, limit: int) -> list[tuple[str, datetime]]:
        """The tasks that await approval, each with when its plan was made; those that wait longest, first.

        Tasks that are known for a changed journal are left out.
        """

    async def delete(self, task: Task) -> None:
        """Forget a terminal task, or one whose journal was changed.

        Raises: TaskNotFoundError, ConflictError, StoreUnavailableError.
        """

    async def save_definitions(self, identity: str, definitions: Sequence[JudgedDefinition]) -> None:
        """Keep what a server of this identity listed, in place of what was kept before."""

    async def load_definitions(self, identity: str) -> list[JudgedDefinition] | None:
        """Return what a server of this identity listed last; `None` where nothing is kept that can be read."""

    async def check(self) -> None:
        """Return where a write succeeded within the last second, by writing if need be (G16).

        Raises: StoreUnavailableError.
        """


class Runner(Protocol):
    """Who makes progress happen. Submitting twice, late or on two machines at once is safe; see `Orchestrator`."""

    async def wake(self, task_id: str) -> None:
        """See to it that the task is run soon, and again if it was being run just now."""

    async def cancel(self, task_id: str) -> None:
        """Tell the run of this task, if there is one, that a cancellation was written; else submit it."""

    @property
    def queue(self) -> Mapping[str, int]:
        """Return how many tasks run now, wait for their turn, and rest after a failure: running, waiting, resting."""


def _no_faults(_: Plan) -> Sequence[Fault]:
    return ()


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a planner is asked: the prompt, the tools it may use and the most steps it may take.

    For a revision, `previous` is the plan that was not wanted and `feedback` all that was said about it and about
    those before it, in order. `faults` is what the contract says against a plan; `agent_steps`: whether one may hold
    agent steps; `max_tokens` is what may be spent in all, null for no limit; `on_text` hears the answer as it is
    written.
    """

    prompt: str
    tools: Sequence[Tool]
    max_steps: int
    feedback: tuple[str, ...] = ()
    previous: Plan | None = None
    faults: Callable[[Plan], Sequence[Fault]] = _no_faults
    agent_steps: bool = False
    max_tokens: int | None = None
    on_text: Callable[[str], None] = ignore_text


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """A plan, and what was spent on it."""

    plan: Plan
    usage: Usage = field(default_factory=Usage)


class Planner(Protocol):
    """Who turns a prompt into a plan. The answer is judged by the contract, never trusted.

    `name` is what the journal says of who planned; `needs_model`: it cannot plan where no model is configured.
    `builtin_first`: it plans with the built-in servers alone where they can do what is asked, so it is not kept
    waiting for others, which take time to start; where they cannot, it raises MissingToolError.
    """

    name: str
    needs_model: bool
    builtin_first: bool

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """A plan for the prompt and the feedback.

        Raises: PlanningError saying which part, what can be done, and what to configure.
        """


class LanguageModel(Protocol):
    """A language model behind some library. Its answers are proposals; nothing it says is done by the adapter."""

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """The model's answer, whole. Safe to ask for side by side; a cancelled request is closed.

        Raises: ModelError once retries have not helped.
        """

    def status(self) -> ModelStatus: ...


class Lease(Protocol):
    """The sessions that one run of a task may use, until the lease ends."""

    async def definitions(self, server_id: str) -> Mapping[str, ToolDefinition]:
        """What this very session lists *now*, by tool name, not a cache (G6). Raises: ServerUnavailableError."""

    async def renew(self, server_id: str) -> None:
        """Get a new session with this server, in place of one that it does not know any more.

        Raises: ServerUnavailableError.
        """

    def has_changed(self, server_id: str) -> bool:
        """Whether the server has said `tools/list_changed` since this lease last asked for its definitions."""

    async def call(
        self, server_id: str, tool: str, arguments: JsonObject, *, timeout_s: float, cancel: asyncio.Event
    ) -> StoredResult:
        """Send one call and return its whole result, uncut; an error of the tool is a result.

        Never sends twice. Once `cancel` is set, or after `timeout_s`, the server is told and awaited 5 s at most. An
        answer of which nothing can be read is an error that is `unreadable`.
        Raises: CallNotSentError where it certainly never left, SessionLostError where the server turned it away unseen
        because it does not know the session, OutcomeUnknownError where it left and no answer came.
        """


class ToolServers(Protocol):
    """The MCP servers, as processes and connections. Whatever a lease started is gone after it (G10)."""

    async def discover(self, server: ToolServer) -> Offer:
        """Start or reach the server, list its tools, and let it go. Raises: ServerUnavailableError."""

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with the id of a shared server that says that its tools have changed."""

    def lease(self, servers: Iterable[ToolServer]) -> AbstractAsyncContextManager[Lease]:
        """Sessions with exactly these servers. Entering raises: ServerUnavailableError."""

    @property
    def connections(self) -> Counter[str]:
        """Return how many connections each server has, by its id: from their start until their processes are gone."""


SocketName = tuple[Any, ...]
"""A host and a port, as `getpeername` gives them; with IPv6 the flow and the interface too."""


@dataclass(frozen=True, slots=True)
class PeerRefusal:
    """Why a caller may not use the service without a key, and the process that it is, if it was found.

    `started_by_service`: it is, or is below, a process that this one started. `gone`: its end of the connection was
    closed. `unseen`: it may be such a process, since nobody else can be seen at the other end; `error` says what could
    not be read, if that is why.
    """

    reason: Literal["started_by_service", "gone", "unseen"]
    pid: int | None = None
    error: str | None = None


class PeerCheck(Protocol):
    """Who may use the service without a key: any process but those that the service started (G14)."""

    def refuse(self, client: SocketName, server: SocketName) -> PeerRefusal | None:
        """Return why the process at the other end of this TCP connection may not use the service; None where it may.

        Blocks for some milliseconds: call it in a thread, once for a connection, and from the service's own process.
        """
