"""The PlannerAgent: builds the request to a planner and judges its answer."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from agent_runtime.config import ApprovalSettings
from agent_runtime.domain.budget import tokens_left
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.errors import (
    Fault,
    InvalidInputError,
    InvalidPlanError,
    MissingToolError,
    PlanningError,
    ServersDownError,
)
from agent_runtime.domain.events import POLICY, Event, PlanApproved, PlanEdited, PlanProposed, PlanRepinned
from agent_runtime.domain.offered_tools import OfferedTools
from agent_runtime.domain.plan import AgentStep, Plan, tool_names
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.rerun import Rerun, find_repeated_calls
from agent_runtime.domain.task import Task, Waiting
from agent_runtime.domain.values import LARGE_BYTES
from agent_runtime.live.progress import Piece, Progress
from agent_runtime.services.planning_log import PlanningLog
from agent_runtime.services.ports import Fleet, Planner
from agent_runtime.services.tool_registry import ToolRegistry


class PlannerAgent:
    """Turns prompts and ready-made plans into contracts that a person can approve."""

    def __init__(
        self,
        planner: Planner,
        registry: ToolRegistry,
        progress: Progress,
        attempts: PlanningLog,
        *,
        start_s: float,
        install_s: float,
        approval: ApprovalSettings,
        fleet: Fleet,
    ) -> None:
        self._planner = planner
        self._registry = registry
        self._progress = progress
        self._attempts = attempts
        self._start_s = start_s
        self._install_s = install_s
        self._approval = approval
        self._fleet = fleet

    @property
    def name(self) -> str:
        return self._planner.name

    async def propose(self, task: Task) -> list[Event]:
        """Ask the planner, and return its plan as the next revision, with the approval if policy gives it.

        Raises: PlanningError where the planner declines, ServersDownError if a server that is down may be why;
        InvalidPlanError where its plan breaks the contract.
        """
        allowed = self._select_servers(task.tools)
        if task.waiting and task.waiting.kind == "server":
            await self._ask_servers_again(task.waiting, allowed)
        try:
            answer, offered = await self._ask_in_turn(task, allowed)
        except PlanningError as error:
            down = self._registry.list_outages(allowed)
            may_be_why = isinstance(error, MissingToolError) or (
                error.code == PlanningError.code and not self._planner.builtin_first
            )
            if down and may_be_why:
                raise ServersDownError(error, down) from error
            raise
        contract = await self._draw_up(answer.plan, task.limits, offered, task.rerun)
        proposed = PlanProposed(
            revision=task.plan_revision + 1,
            digest=contract.digest,
            contract=contract,
            definitions=offered.select_pinned(contract),
            identities=offered.select_facts(contract),
            planner=self._planner.name,
            usage=answer.usage,
        )
        # A person who asked for a revision wants to see the new plan.
        return self._with_policy(proposed, task.rerun, auto=task.approval == "auto" and not task.feedback)

    async def _ask_servers_again(self, waiting: Waiting, allowed: Sequence[str]) -> None:
        """Ask the servers that are down again. Raises: ServersDownError where it is too early to ask a model again."""
        before = [one.server_id for one in self._registry.list_outages(allowed)]
        self._registry.invalidate(before)
        await self._registry.ready(before, self._start_s)
        down = self._registry.list_outages(before)
        same = len(down) == len(before) > 0 and datetime.now(UTC) < waiting.gives_up_at
        if same and not self._planner.builtin_first:
            raise ServersDownError(PlanningError("The language model was not asked again yet."), down)

    async def _ask_in_turn(self, task: Task, allowed: Sequence[str]) -> tuple[PlanAnswer, OfferedTools]:
        """Ask the planner, where it does so first with the built-in servers alone."""
        first = self._registry.list_enabled(builtin_only=self._planner.builtin_first)
        try:
            awaited = [name for name in first if name in allowed]
            return await self._ask(task, awaited, allowed, self._start_s)
        except MissingToolError:
            if not self._planner.builtin_first:
                raise
            # Another server may offer the missing tool, and may still be installing.
            return await self._ask(task, allowed, allowed, self._install_s)

    async def _ask(
        self, task: Task, awaited: Sequence[str], allowed: Sequence[str], within_s: float
    ) -> tuple[PlanAnswer, OfferedTools]:
        """Ask the planner once the `awaited` servers are known; return its answer and what it was offered."""
        await self._registry.ready(awaited, within_s)
        if self._planner.needs_model or self._registry.identities.model is None:
            await self._registry.identify_model()
        offered = self._offer(allowed)
        request = PlanRequest(
            task.prompt,
            [tool for tool in offered.tools.values() if not tool.denied],
            task.limits.max_steps,
            feedback=task.feedback,
            previous=task.contract.plan if task.contract else None,
            faults=lambda plan: offered.find_faults(plan, task.limits),
            agent_steps=offered.has_model,
            max_tokens=tokens_left(task),
            on_text=lambda text: self._progress.say(task.task_id, Piece(None, text)),
            keep=partial(self._attempts.keep, task),
        )
        return await self._planner.plan(request), offered

    async def accept(
        self,
        plan: Plan,
        limits: Limits,
        server_ids: Sequence[str] | None,
        *,
        auto: bool,
        rerun: Rerun | None = None,
    ) -> list[Event]:
        """Judge a ready-made plan as `propose` judges a planner's. Waits until the servers in the plan are known.

        Raises: InvalidPlanError, whose faults name fields that begin with `plan`.
        """
        contract, offered = await self._judge(plan, limits, server_ids, rerun)
        proposed = PlanProposed(
            revision=1,
            digest=contract.digest,
            contract=contract,
            definitions=offered.select_pinned(contract),
            identities=offered.select_facts(contract),
            planner="user",
        )
        return self._with_policy(proposed, rerun, auto=auto)

    async def edit(self, plan: Plan, task: Task, caller: Caller) -> PlanEdited:
        """Judge a plan that was edited by hand, and return it as the next revision. Raises: as `accept`."""
        contract, offered = await self._judge(plan, task.limits, task.tools, task.rerun)
        return PlanEdited(
            revision=task.plan_revision + 1,
            digest=contract.digest,
            contract=contract,
            definitions=offered.select_pinned(contract),
            identities=offered.select_facts(contract),
            **caller.signature,
        )

    async def identify_model(self, plan: Contract | Plan | None) -> None:
        """Find out which model there is now, if the plan has agent steps."""
        if self._registry.asks_for_model and plan and any(isinstance(step, AgentStep) for step in plan.steps):
            await self._registry.identify_model()

    def differences(self, task: Task) -> list[str]:
        """Return a sentence for each current server, and the model, that differs from the plan's."""
        return self._registry.identities.differences(task.contract, task.identities) if task.contract else []

    async def is_at_home_elsewhere(self, task: Task) -> bool:
        """Return whether another worker has the servers and the model of the plan. Raises: StoreUnavailableError."""
        return task.contract is not None and await self._fleet.has_entries(task.contract)

    async def repin(self, task: Task, differences: Sequence[str]) -> list[Event]:
        """Return the current plan as the next revision, pinned to the current servers and model.

        If policy had approved the plan, policy judges it again. Raises: InvalidPlanError.
        """
        assert task.contract is not None  # noqa: S101 - a task without one has no differences
        contract, offered = await self._judge(task.contract.plan, task.limits, task.tools, task.rerun)
        repinned = PlanRepinned(
            revision=task.plan_revision + 1,
            digest=contract.digest,
            contract=contract,
            definitions=offered.select_pinned(contract),
            identities=offered.select_facts(contract),
            differences=tuple(differences),
        )
        return self._with_policy(repinned, task.rerun, auto=task.approved_by == POLICY)

    async def _judge(
        self, plan: Plan, limits: Limits, server_ids: Sequence[str] | None, rerun: Rerun | None
    ) -> tuple[Contract, OfferedTools]:
        allowed = self._select_servers(server_ids)
        named = {server for step in plan.steps for server, _ in tool_names(step)}
        await self._registry.ready([name for name in allowed if name in named], self._start_s)
        await self.identify_model(plan)
        offered = self._offer(allowed)
        try:
            contract = await self._draw_up(plan, limits, offered, rerun)
        except InvalidPlanError as error:
            places = [f"plan.{fault.field}" if fault.field else "plan" for fault in error.faults]
            faults = [Fault(place, fault.message) for place, fault in zip(places, error.faults, strict=True)]
            raise InvalidPlanError(faults) from error
        return contract, offered

    async def _draw_up(self, plan: Plan, limits: Limits, offered: OfferedTools, rerun: Rerun | None) -> Contract:
        """Build the contract of a plan, in a thread if the plan is large. Raises: InvalidPlanError."""

        def draw() -> Contract:
            contract = draw_up(
                plan,
                limits,
                offered.tools,
                model=offered.identities.model,
                no_model=offered.identities.no_model,
                covers_data=self._approval.covers_data,
                unusable=offered.unusable,
                rerun=rerun,
            )
            _ = contract.digest  # computed in this thread, and cached
            return contract

        return await asyncio.to_thread(draw) if len(plan.model_dump_json()) > LARGE_BYTES else draw()

    def _offer(self, server_ids: Iterable[str]) -> OfferedTools:
        registry = self._registry
        return OfferedTools(registry.tools(server_ids), registry.explain_missing(server_ids), registry.identities)

    def check_servers(self, server_ids: Sequence[str] | None) -> None:
        """Check that each of these ids names an enabled server. Raises: InvalidInputError naming those that do not."""
        known = self._registry.list_enabled()
        faults = [
            Fault(f"tools[{index}]", f"There is no enabled server {name!r}; there are {', '.join(known) or 'none'}.")
            for index, name in enumerate(server_ids or ())
            if name not in known
        ]
        if faults:
            raise InvalidInputError(faults)

    def _select_servers(self, server_ids: Sequence[str] | None) -> list[str]:
        return [name for name in self._registry.list_enabled() if server_ids is None or name in server_ids]

    def _may_run_unasked(self, contract: Contract) -> bool:
        return all(policy.effect in self._approval.auto_effects for policy in contract.policy.values())

    def _with_policy(self, proposed: PlanProposed | PlanRepinned, rerun: Rerun | None, *, auto: bool) -> list[Event]:
        contract = proposed.contract
        repeats = find_repeated_calls(rerun, contract.rerun, contract.plan)
        safe = all(contract.policy[made.key].idempotent for made in repeats)
        if not (auto and safe and self._may_run_unasked(contract)):
            return [proposed]
        return [proposed, PlanApproved(revision=proposed.revision, digest=proposed.digest, actor=POLICY)]
