"""The life of a task under every accident: runs that crash, superseded runs that continue, lost answers, and people who
decide at the worst moment. Guarantees G2, G4, G5 and G7 must hold on every path, and G3: progress.
"""

from typing import get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from agent_runtime.domain.events import EVENTS, Resolution
from unit.domain.life.machine import LifeOfATask, make_machine

BEYOND = frozenset[str]()
"""Events that the machine cannot produce yet."""

EVERYDAY = settings(
    max_examples=80,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(EVERYDAY, max_examples=600, stateful_step_count=50)

USUAL = (
    "parallel calls",
    "a repeated call",
    "an edited call",
    "a question: accept",
    "a question: decline",
    "a question: cancel",
    *(f"resolved: {how}" for how in get_args(Resolution)),
)
ACCIDENTS = (
    "a crash now",
    "a crash before",
    "a crash after",
    "a superseded run waits for an answer",
    "a late answer",
)
CONFLICTS = (
    "a second claim is refused",
    "a decision on an outdated state",
    "an author tried to approve their own work",
)


def test_the_guarantees_hold_in_every_life_of_a_task() -> None:
    run_state_machine_as_test(make_machine(), settings=EVERYDAY)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_guarantees_hold_for_ten_thousand_steps_that_see_all_that_can_happen() -> None:
    machine: type[LifeOfATask] = make_machine()
    run_state_machine_as_test(machine, settings=THOROUGH)
    assert machine.steps >= 10_000
    assert set(machine.events) == EVENTS.keys() - BEYOND
    assert [what for what in (*USUAL, *ACCIDENTS, *CONFLICTS) if not machine.occurrences[what]] == []
