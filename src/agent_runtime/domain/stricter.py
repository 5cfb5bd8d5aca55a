"""Tighten an approved contract: a registry that became stricter since the approval applies to approved plans too (G6).

A registry that became more permissive changes nothing: the approved contract remains the upper limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent_runtime.domain.asking import reasons_to_ask
from agent_runtime.domain.contract import Contract, PinnedPolicy
from agent_runtime.domain.drafting import pin_policy
from agent_runtime.domain.tools import Effect, Tool

_FROM_MILD_TO_STRICT = (Effect.READ, Effect.WRITE, Effect.DESTRUCTIVE, Effect.UNKNOWN)


@dataclass(frozen=True, slots=True)
class TightenedContract:
    """A contract in which each policy is the stricter of the approved one and the operator's current one.

    `asks`: by tool (`server/tool`), why each call now needs approval although it did not when the plan was approved.
    `disabled`: the tools that the operator has disabled.
    """

    contract: Contract
    asks: Mapping[str, str] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()


def tighten_contract(
    contract: Contract, tools: Mapping[str, Tool], disabled: frozenset[str] = frozenset()
) -> TightenedContract:
    """Return the contract tightened to the current policies. `tools`: by `server/tool`; missing ones change nothing."""
    policy = {
        key: _tighten_policy(pinned, tools[key]) if key in tools else pinned for key, pinned in contract.policy.items()
    }
    asks = {key: "; ".join(_describe_changes(key, contract.policy[key], policy[key])) for key in policy}
    strict = contract.model_dump() | {
        "policy": policy,
        "asks": {**_new_reasons(contract, policy, tools), **contract.asks},
    }
    return TightenedContract(Contract.model_validate(strict), {key: why for key, why in asks.items() if why}, disabled)


def _tighten_policy(pinned: PinnedPolicy, now: Tool) -> PinnedPolicy:
    return PinnedPolicy(
        effect=max(pinned.effect, now.effect, key=_FROM_MILD_TO_STRICT.index),
        idempotent=pinned.idempotent and now.idempotent,
        open_world=None if pinned.open_world is None else pinned.open_world or now.open_world,
        approval="call" if "call" in {pinned.approval, now.approval} else "plan",
        vouched=None if pinned.vouched is None else pinned.vouched and now.vouched,
        timeout_s=min(pinned.timeout_s or now.timeout_s, now.timeout_s),
        max_timeout_s=_shorter(pinned, pin_policy(now)),
    )


def _shorter(pinned: PinnedPolicy, now: PinnedPolicy) -> float | None:
    """Return the shorter `max_timeout_s`; None where neither says one: it then follows from the time-out."""
    if pinned.max_timeout_s is None and now.max_timeout_s is None:
        return None
    return min(pinned.longest_s(), now.longest_s())


def _new_reasons(contract: Contract, policy: Mapping[str, PinnedPolicy], tools: Mapping[str, Tool]) -> dict[str, str]:
    """Return the current reasons to ask, by step id; none for form 1, which does not record enough to tell."""
    if contract.form == 1 or not policy.keys() <= tools.keys():
        return {}
    judged = {key: tools[key].model_copy(update=dict(policy[key])) for key in policy}
    return reasons_to_ask(contract.plan, judged, contract.rerun)


def _describe_changes(key: str, pinned: PinnedPolicy, now: PinnedPolicy) -> Iterator[str]:
    if now.effect is not pinned.effect:
        yield f"the operator now says that the effect of {key} is {now.effect}; it was approved as {pinned.effect}"
    if now.open_world and pinned.open_world is False:
        yield f"the operator now says that {key} reaches the outside world; it was approved as one that does not"
