"""Those who have lost their minds: they write past the service and past the rules of a run, straight to the store.

Nobody but a mistaken or malicious component would. What they get into the journal they also send.
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
from unit.domain.life.model import answer
from unit.domain.life.plans import Plans
from unit.domain.life.run import Run, repinned_plan
from unit.domain.life.store import CrashedError, Store
from unit.domain.life.world import UnresolvedError, World, given


class Mindless:
    """One task with all that goes on around it, and what may go wrong there."""

    store: Store
    world: World
    plans: Plans
    runs: list[Run]
    ids: Iterator[int]
    seen: list[Task]

    @property
    def task(self) -> Task:
        return self.store.task

    @property
    def steps_of_plan(self) -> list[ToolStep]:
        return [step for step in (self.task.contract.steps if self.task.contract else ()) if isinstance(step, ToolStep)]

    @property
    def agents_of_plan(self) -> list[AgentStep]:
        return [
            step for step in (self.task.contract.steps if self.task.contract else ()) if isinstance(step, AgentStep)
        ]

    def old(self, back: int) -> Task:
        """What somebody has read, a while ago."""
        return self.seen[-back] if 0 < back <= len(self.seen) else self.task

    def accepted(self, epoch: int | None, *events: ev.Event) -> bool:
        before = self.task
        try:
            self.store.append(self.task, *events, epoch=epoch)
        except (IllegalTransitionError, StaleEpochError):
            assert self.task is before
            return False
        return True

    def the_service_has_lost_its_mind(self, data: st.DataObject) -> None:
        """It writes decisions on what is not asked, or twice."""
        now, then = self.task, self.old(data.draw(st.integers(1, 4)))
        for task in (now, then):
            about = {"revision": data.draw(st.sampled_from([task.plan_revision, now.plan_revision])), "digest": "d"}
            if task.plan_digest and (now.status != "awaiting_approval" or task.plan_digest != now.plan_digest):
                about["digest"] = task.plan_digest
            self.accepted(None, ev.PlanApproved(**about))
            self.accepted(None, ev.PlanRevisionRequested(feedback="f", **about))
            self.accepted(None, ev.TaskExpired(**about))
        if "bob" in now.authors and not self.world.breaches:
            own = {"revision": now.plan_revision, "digest": now.plan_digest or ""}
            self.accepted(None, ev.PlanApproved(**own, actor="bob", scopes=("approve",)))
        contract = self.plans(now.plan_revision)
        self.accepted(None, ev.PlanEdited(revision=now.plan_revision, digest="d", contract=contract, definitions={}))
        if now.contract and (now.has_begun or now.status not in {"awaiting_approval", "executing"}):
            renewed = repinned_plan(now)
            self.accepted(None, renewed)
            self.accepted(now.epoch, renewed)
        if now.status != "awaiting_approval":
            other = self.plans(now.plan_revision + 1)
            edited = {"revision": now.plan_revision + 1, "digest": other.digest, "contract": other, "definitions": {}}
            self.accepted(None, ev.PlanEdited(**edited))
        for name, step in now.steps.items():
            for resolution in ("done", "retry"):
                self.accepted(None, ev.StepResolved(step_id=name, call_id="c0", resolution=resolution))
            for question_id in ("q0", *(asked.question_id for asked in then.questions.values())):
                if step.question is None or step.question.question_id != question_id:
                    wrong = ev.InputAnswered(step_id=name, question_id=question_id, action="accept", content={})
                    self.accepted(None, wrong)
            call_id = step.asked.call_id if step.asked else "c0"
            self.accepted(None, ev.CallApproved(step_id=name, call_id=call_id, arguments_digest="d"))
        if self.task.terminal:
            self.accepted(None, ev.TaskCancelRequested())

    def a_run_has_lost_its_mind(self, data: st.DataObject) -> None:
        """The newest run calls all that the journal lets it call, and sends it; then it dies."""
        self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        for agent in data.draw(st.permutations(self.agents_of_plan)):
            self.an_agent_has_lost_its_mind(agent)
        for step in [] if self.world.breaches else data.draw(st.permutations(self.steps_of_plan)):
            try:
                arguments = self.world.arguments(step.id)
            except UnresolvedError:
                arguments = {}
            state = self.task.steps[step.id]
            attempt = state.call.attempt + 1 if state.call else 1
            started = ev.StepStarted(step_id=step.id, title="t")
            for tool in ("rm", step.tool):
                if self.world.breaches:
                    return
                call_id = f"c{next(self.ids)}"
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
                if self.accepted(self.task.epoch, called) or self.accepted(self.task.epoch, started, fresh):
                    self.world.receive(called)

    def a_run_goes_astray(self) -> None:
        """The newest run proposes what nobody has asked for, sends all that it was permitted, and dies."""
        self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        run = Run(self.store, self.plans, self.ids, self.task, most=3)
        with suppress(CrashedError):
            run.step("stray")
            while run.calling:
                run.step("more")

    def an_agent_has_lost_its_mind(self, agent: AgentStep) -> None:
        """What the model of a step wants, and what it does not: other tools, other arguments, all that is past."""
        epoch, started = self.task.epoch, ev.StepStarted(step_id=agent.id, title="t")
        if not self.accepted(epoch, started):
            self.accepted(epoch, ev.StepCompleted(step_id=agent.id))
        places = [(turn, index) for turn in (1, 2) for index in (0, 1, 2)]
        for turn, index in places:
            for tool in ("rm", *(allowed.tool for allowed in agent.tools), "sign"):
                for arguments in self.arguments_for(agent, turn, index):
                    if self.world.breaches:
                        return
                    self.an_agent_calls(agent.id, tool, arguments, turn, index)
        turns = len(self.world.steps[agent.id].turns)
        for turn in (turns, turns + 2, agent.max_turns + 1, turns + 1):
            for how in ("good", "each"):
                if not self.world.breaches:
                    self.accepted(epoch, answer(agent, turn, how))

    def arguments_for(self, agent: AgentStep, turn: int, index: int) -> list[dict[str, Any]]:
        turns = self.world.steps[agent.id].turns
        calls = turns[turn - 1]["calls"] if turn <= len(turns) else []
        said = given(calls[index]) if index < len(calls) else None
        return [{"n": 98}, {"n": True}, *([said] if isinstance(said, dict) else [])]

    def an_agent_calls(self, step_id: str, tool: str, arguments: dict[str, Any], turn: int, index: int) -> None:
        parts = {
            "step_id": step_id,
            "call_id": f"c{next(self.ids)}",
            "server": "f",
            "tool": tool,
            "arguments": arguments,
            "arguments_digest": digest(arguments),
            "turn": turn,
            "index": index,
        }
        state = self.task.steps[step_id]
        called = ev.ToolCalled(**parts, attempt=state.call.attempt + 1 if state.call else 1)
        if self.accepted(self.task.epoch, called):
            self.world.receive(called)

    def a_run_ends_the_task_of_its_own_accord(self) -> None:
        asked = self.task.cancel_requested
        completed = self.accepted(self.task.epoch, ev.TaskCompleted(result="made up"))
        cancelled = self.accepted(self.task.epoch, ev.TaskCancelled())
        if completed or cancelled:
            self.runs = [run for run in self.runs if run.epoch < self.task.epoch]
        assert asked or not cancelled, "it was cancelled, and nobody had asked for it"

    def others_write_what_comes_to_mind(self) -> None:
        epoch = self.task.epoch
        waits = self.task.status in WAITING and not (self.task.cancel_requested or self.task.questions)
        refused: list[tuple[int | None, ev.Event]] = []
        for step_id, asked in self.task.questions.items():
            withdrawn = ev.InputWithdrawn(step_id=step_id, question_id=asked.question_id, reason="r")
            refused += [(other, withdrawn) for other in (epoch - 1, epoch + 1, None)]
        for agent in self.agents_of_plan:
            said = answer(agent, len(self.task.steps[agent.id].turns) + 1, "good")
            refused += [(other, said) for other in (epoch - 1, epoch + 1, None)]
        for step in self.steps_of_plan:
            known = {"step_id": step.id, "server": step.server, "tool": step.tool}
            called = ev.ToolCalled(**known, call_id="c0", arguments={}, arguments_digest="d", attempt=1)
            of_a_run = (called, ev.StepStarted(step_id=step.id, title="t"), ev.StepCompleted(step_id=step.id))
            for event in (*of_a_run, ev.TaskFailed(code="c", message="m", step_id=step.id)):
                refused += [(other, event) for other in (epoch - 1, epoch + 1, None)]
        refused += [(epoch, ev.TaskClaimed(runner="thief", epoch=epoch))]
        if waits:
            refused += [(epoch + 1, ev.TaskClaimed(runner="thief", epoch=epoch + 1))]
        revision = self.task.plan_revision + 1
        contract = self.plans(1)
        forged = ev.PlanProposed(revision=revision, digest="d", contract=contract, definitions={}, planner="x")
        refused += [(None, forged)]
        for other, wrong in refused:
            taken = self.accepted(other, wrong)
            assert not taken or self.world.breaches, f"{wrong.type} of another than the newest run was taken"
