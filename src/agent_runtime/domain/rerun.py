"""Reruns: the results that a new task reuses from a finished one.

The first event of the new task contains all of them, so that the finished task may be deleted. The contract names each
reused result by its digest, so that an approval of the plan covers these results.
"""

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Literal

from agent_runtime.domain.plan import Plan, Step, tool_keys
from agent_runtime.domain.tools import StoredResult, tool_key
from agent_runtime.domain.values import JsonValue, Value, digest, digest_of_bytes

REUSED_BYTES = 8 * 1024 * 1024
"""The limit on the reused results of one task together, in bytes of JSON."""

RerunFrom = Literal["start", "failed_step"]


class ReusedResult(Value):
    """The result of a completed step.

    `step` is the digest of the step as it was planned (`digest_step`). A step with another digest does not get the
    result.
    `open_world`: a tool of the step reached beyond this machine.
    """

    step: str
    result: StoredResult
    open_world: bool


class MadeCalls(Value):
    """The calls of one tool that a step of the finished task, or of a task before it, has made.

    `unknown`: for at least one of them, nobody knows whether it took effect.
    """

    step_id: str
    server: str
    tool: str
    count: int
    unknown: bool

    @property
    def key(self) -> str:
        return tool_key(self.server, self.tool)


class Rerun(Value):
    """The parts of the finished task `task_id` that a task reuses. `head`: the hash of its last record.

    `results`: by step id. `authors`: all authors of the finished task.
    """

    task_id: str
    head: str
    start: RerunFrom
    results: Mapping[str, ReusedResult] = {}
    calls: tuple[MadeCalls, ...] = ()
    authors: tuple[str, ...] = ()

    @property
    def image_digests(self) -> list[str]:
        """The digests of the images in the results."""
        return [image.digest for reused in self.results.values() for image in reused.result.images]


class PinnedResult(Value):
    """A reused result in a contract: its digest, and whether it came from beyond this machine."""

    digest: str
    open_world: bool


class PinnedRerun(Value):
    """The part of a contract that names what is reused. `results` are by step id."""

    task_id: str
    head: str
    results: Mapping[str, PinnedResult]


def digest_step(step: Step) -> str:
    """Return the digest of a step as it was planned, without its title, its reasoning and its time-outs."""
    value: JsonValue = step.model_dump(mode="json", exclude={"title", "reasoning", "timeout_s"})
    for tool in value.get("tools", ()):
        del tool["timeout_s"]
    return digest(value)


def pin_rerun(rerun: Rerun | None, plan: Plan) -> PinnedRerun | None:
    """Return the results that the steps of this plan reuse; None if the task is not a rerun.

    A step reuses its earlier result if the step is unchanged, and all steps that it needs reuse theirs.
    """
    if rerun is None:
        return None
    steps = {step.id: step for step in plan.steps}
    pinned: dict[str, PinnedResult] = {}
    for name in TopologicalSorter({step.id: step.needs for step in plan.steps}).static_order():
        reused = rerun.results.get(name)
        if reused and digest_step(steps[name]) == reused.step and steps[name].needs <= pinned.keys():
            pinned[name] = PinnedResult(digest=digest_result(reused.result), open_world=reused.open_world)
    return PinnedRerun(task_id=rerun.task_id, head=rerun.head, results=pinned)


def digest_result(result: StoredResult) -> str:
    """Return the digest of a result as stored in the journal, since it may contain numbers without a canonical form."""
    return digest_of_bytes(result.model_dump_json().encode())


def find_repeated_calls(rerun: Rerun | None, pinned: PinnedRerun | None, plan: Plan) -> Iterator[MadeCalls]:
    """Yield the earlier calls that this plan may repeat: those of a tool that a step calls again."""
    if rerun is None:
        return
    reused = pinned.results if pinned else {}
    again = {key for step in plan.steps if step.id not in reused for key in tool_keys(step)}
    yield from (made for made in rerun.calls if made.key in again)
