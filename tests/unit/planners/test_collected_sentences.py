"""Plans sentences that others wrote: none may be planned wrong, and most must be planned."""

import pytest

from agent_runtime.domain.errors import PlanningError
from unit.planners.collected_sentences import FIRST, SECOND
from unit.planners.corpus import Steps
from unit.planners.planning import all_tools, plan, steps_of


@pytest.mark.parametrize("collected", [FIRST, SECOND], ids=["first", "second"])
async def test_what_others_ask_for_is_planned_right_or_refused(collected: list[tuple[str, Steps | None]]) -> None:
    tools = await all_tools()
    made: list[tuple[str, Steps | None]] = []
    for prompt, _ in collected:
        try:
            made.append((prompt, steps_of(await plan(prompt, tools))))
        except PlanningError:
            made.append((prompt, None))
    assert made == collected
    assert len(made) == 100
    assert sum(steps is not None for _, steps in made) >= 70
