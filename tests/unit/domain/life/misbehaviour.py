"""Faulty or malicious components, which write straight to the store and bypass the service and the rules of runs.

They also send every call that they manage to write to the journal.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from agent_runtime.domain import events as ev
from agent_runtime.domain.errors import IllegalTransitionError, StaleEpochError
from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.status import WAITING
from agent_runtime.domain.task import Task
from agent_runtime.domain.values import digest
from unit.domain.life.model import make_answer
from unit.domain.life.plans import DraftContract
from unit.domain.life.run import Run, repin_plan
from unit.domain.life.store import CrashError, Store
from unit.domain.life.world import UnresolvedReferenceError, World, parse_arguments


class Misbehaviour:
    """The misbehaviours of the components around one task."""

    store: Store
    world: World
    draft_contract: DraftContract
    runs: list[Run]
    call_numbers: Iterator[int]
    recent_states: list[Task]

    @property
    def task(self) -> Task:
        return self.store.task

    @property
    def tool_steps(self) -> list[ToolStep]:
        return [step for step in (self.task.contract.steps if self.task.contract else ()) if isinstance(step, ToolStep)]

    @property
    def agent_steps(self) -> list[AgentStep]:
        return [
            step for step in (self.task.contract.steps if self.task.contract else ()) if isinstance(step, AgentStep)
        ]

    def read_earlier(self, back: int) -> Task:
        """Return a state that somebody may have read earlier."""
        return self.recent_states[-back] if 0 < back <= len(self.recent_states) else self.task

    def try_append(self, epoch: int | None, *events: ev.Event) -> bool:
        before = self.task
        try:
            self.store.append(self.task, *events, epoch=epoch)
        except (IllegalTransitionError, StaleEpochError):
            assert self.task is before
            return False
        return True

    def misbehave_as_service(self, data: st.DataObject) -> None:
        """Write decisions that nobody was asked for, and some a second time."""
        now, then = self.task, self.read_earlier(data.draw(st.integers(1, 4)))
        for task in (now, then):
            about = {"revision": data.draw(st.sampled_from([task.plan_revision, now.plan_revision])), "digest": "d"}
            if task.plan_digest and (now.status != "awaiting_approval" or task.plan_digest != now.plan_digest):
                about["digest"] = task.plan_digest
            self.try_append(None, ev.PlanApproved(**about))
            self.try_append(None, ev.PlanRevisionRequested(feedback="f", **about))
            self.try_append(None, ev.TaskExpired(**about))
        if "bob" in now.authors and not self.world.breaches:
            own = {"revision": now.plan_revision, "digest": now.plan_digest or ""}
            self.try_append(None, ev.PlanApproved(**own, actor="bob", scopes=("approve",)))
        contract = self.draft_contract(now.plan_revision)
        self.try_append(None, ev.PlanEdited(revision=now.plan_revision, digest="d", contract=contract, definitions={}))
        if now.contract and (now.has_begun or now.status not in {"awaiting_approval", "executing"}):
            renewed = repin_plan(now)
            self.try_append(None, renewed)
            self.try_append(now.epoch, renewed)
        if now.status != "awaiting_approval":
            other = self.draft_contract(now.plan_revision + 1)
            edited = {"revision": now.plan_revision + 1, "digest": other.digest, "contract": other, "definitions": {}}
            self.try_append(None, ev.PlanEdited(**edited))
        for name, step in now.steps.items():
            for resolution in ("done", "retry"):
                self.try_append(None, ev.StepResolved(step_id=name, call_id="c0", resolution=resolution))
            for question_id in ("q0", *(asked.question_id for asked in then.questions.values())):
                if step.question is None or step.question.question_id != question_id:
                    wrong = ev.InputAnswered(step_id=name, question_id=question_id, action="accept", content={})
                    self.try_append(None, wrong)
            call_id = step.asked.call_id if step.asked else "c0"
            self.try_append(None, ev.CallApproved(step_id=name, call_id=call_id, arguments_digest="d"))
        if self.task.terminal:
            self.try_append(None, ev.TaskCancelRequested())

    def misbehave_as_run(self, data: st.DataObject) -> None:
        """Have the newest run write and send every call that the journal accepts, and die."""
        self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        for agent in data.draw(st.permutations(self.agent_steps)):
            self.misbehave_as_agent(agent)
        for step in [] if self.world.breaches else data.draw(st.permutations(self.tool_steps)):
            try:
                arguments = self.world.resolve_arguments(step.id)
            except UnresolvedReferenceError:
                arguments = {}
            state = self.task.steps[step.id]
            attempt = state.call.attempt + 1 if state.call else 1
            started = ev.StepStarted(step_id=step.id, title="t")
            for tool in ("rm", step.tool):
                if self.world.breaches:
                    return
                call_id = f"c{next(self.call_numbers)}"
                called = ev.ToolCalled(
                    step_id=step.id,
                    call_id=call_id,
                    server=step.server,
                    tool=tool,
                    arguments=arguments,
                    arguments_digest=digest(arguments),
                    attempt=attempt,
                )
                fresh = called.model_copy(update={"attempt": 1})
                if self.try_append(self.task.epoch, called) or self.try_append(self.task.epoch, started, fresh):
                    self.world.receive(called)

    def send_stray_proposals(self) -> None:
        """Have the newest run propose calls that nobody asked for, send the permitted ones, and die."""
        self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        run = Run(self.store, self.draft_contract, self.call_numbers, self.task, max_parallel=3)
        with suppress(CrashError):
            run.step("stray")
            while run.to_send:
                run.step("more")

    def misbehave_as_agent(self, agent: AgentStep) -> None:
        """Write calls of an agent step that its model did not ask for: other tools, other arguments, earlier turns."""
        epoch, started = self.task.epoch, ev.StepStarted(step_id=agent.id, title="t")
        if not self.try_append(epoch, started):
            self.try_append(epoch, ev.StepCompleted(step_id=agent.id))
        places = [(turn, index) for turn in (1, 2) for index in (0, 1, 2)]
        for turn, index in places:
            for tool in ("rm", *(allowed.tool for allowed in agent.tools), "sign"):
                for arguments in self.list_arguments(agent, turn, index):
                    if self.world.breaches:
                        return
                    self.call_as_agent(agent.id, tool, arguments, turn, index)
        turns = len(self.world.steps[agent.id].turns)
        for turn in (turns, turns + 2, agent.max_turns + 1, turns + 1):
            for how in ("good", "each"):
                if not self.world.breaches:
                    self.try_append(epoch, make_answer(agent, turn, how))

    def list_arguments(self, agent: AgentStep, turn: int, index: int) -> list[dict[str, Any]]:
        turns = self.world.steps[agent.id].turns
        calls = turns[turn - 1]["calls"] if turn <= len(turns) else []
        said = parse_arguments(calls[index]) if index < len(calls) else None
        return [{"n": 98}, {"n": True}, *([said] if isinstance(said, dict) else [])]

    def call_as_agent(self, step_id: str, tool: str, arguments: dict[str, Any], turn: int, index: int) -> None:
        parts = {
            "step_id": step_id,
            "call_id": f"c{next(self.call_numbers)}",
            "server": "f",
            "tool": tool,
            "arguments": arguments,
            "arguments_digest": digest(arguments),
            "turn": turn,
            "index": index,
        }
        state = self.task.steps[step_id]
        called = ev.ToolCalled(**parts, attempt=state.call.attempt + 1 if state.call else 1)
        if self.try_append(self.task.epoch, called):
            self.world.receive(called)

    def end_task_unasked(self) -> None:
        asked = self.task.cancel_requested
        completed = self.try_append(self.task.epoch, ev.TaskCompleted(result="made up"))
        cancelled = self.try_append(self.task.epoch, ev.TaskCancelled())
        if completed or cancelled:
            self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        assert asked or not cancelled, "the task was cancelled without a request"

    def write_as_others(self) -> None:
        epoch = self.task.epoch
        waits = self.task.status in WAITING and not (self.task.cancel_requested or self.task.questions)
        refused: list[tuple[int | None, ev.Event]] = []
        for step_id, asked in self.task.questions.items():
            withdrawn = ev.InputWithdrawn(step_id=step_id, question_id=asked.question_id, reason="r")
            refused += [(other, withdrawn) for other in (epoch - 1, epoch + 1, None)]
        for agent in self.agent_steps:
            said = make_answer(agent, len(self.task.steps[agent.id].turns) + 1, "good")
            refused += [(other, said) for other in (epoch - 1, epoch + 1, None)]
        for step in self.tool_steps:
            known = {"step_id": step.id, "server": step.server, "tool": step.tool}
            called = ev.ToolCalled(**known, call_id="c0", arguments={}, arguments_digest="d", attempt=1)
            of_a_run = (called, ev.StepStarted(step_id=step.id, title="t"), ev.StepCompleted(step_id=step.id))
            for event in (*of_a_run, ev.TaskFailed(code="c", message="m", step_id=step.id)):
                refused += [(other, event) for other in (epoch - 1, epoch + 1, None)]
        refused += [(epoch, ev.TaskClaimed(runner="thief", epoch=epoch))]
        if waits:
            refused += [(epoch + 1, ev.TaskClaimed(runner="thief", epoch=epoch + 1))]
        revision = self.task.plan_revision + 1
        contract = self.draft_contract(1)
        forged = ev.PlanProposed(revision=revision, digest="d", contract=contract, definitions={}, planner="x")
        refused += [(None, forged)]
        for other, wrong in refused:
            taken = self.try_append(other, wrong)
            assert not taken or self.world.breaches, (
                f"{wrong.type} was accepted from a writer other than the newest run"
            )
