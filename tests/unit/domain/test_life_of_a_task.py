"""The whole life of a task under every accident: runs that die, runs that do not know they are dead, answers that
are lost, people who decide at the worst moment. Guarantees G2, G4, G5 and G7 must hold on every path (G3: progress).
"""

from typing import get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from agent_runtime.domain.events import EVENTS, Resolution
from unit.domain.life.machine import LifeOfATask, lives

BEYOND = frozenset[str]()
"""Events that these lives do not have yet."""

EVERYDAY = settings(
    max_examples=80,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(EVERYDAY, max_examples=400, stateful_step_count=50)

USUAL = (
    "calls side by side",
    "a call once more",
    "a question: accept",
    "a question: decline",
    *(f"resolved: {how}" for how in get_args(Resolution)),
)
ACCIDENTS = ("a crash now", "a crash before", "a crash after", "a zombie that waits for an answer", "late evidence")
CONFLICTS = (
    "a claim that came second",
    "a decision on what was not so any more",
    "somebody would approve what they wrote",
)


def test_the_guarantees_hold_in_every_life_of_a_task() -> None:
    run_state_machine_as_test(lives(), settings=EVERYDAY)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_guarantees_hold_for_ten_thousand_steps_that_see_all_that_can_happen() -> None:
    machine: type[LifeOfATask] = lives()
    run_state_machine_as_test(machine, settings=THOROUGH)
    assert machine.steps >= 10_000
    assert set(machine.events) == EVENTS.keys() - BEYOND
    assert [what for what in (*USUAL, *ACCIDENTS, *CONFLICTS) if not machine.accidents[what]] == []
