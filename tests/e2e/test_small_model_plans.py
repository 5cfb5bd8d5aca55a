"""Plans of a real model of 135 million parameters."""

from contextlib import aclosing
from pathlib import Path

import pytest

from agent_runtime.config import OpenAISettings
from real_models import run_llama, unpack_model
from simple_prompts import PROMPTS, plan_all
from unit.planners.planning import all_tools

LEAST_VALID = 10


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_tiny_model_makes_valid_plans_for_at_least_half_of_the_simple_requests(tmp_path: Path) -> None:
    assert len(PROMPTS) == 2 * LEAST_VALID
    valid: list[str] = []
    faulty: list[tuple[str, str]] = []
    with run_llama(unpack_model(tmp_path), context_tokens=8192) as server:
        settings = OpenAISettings(base_url=server.base_url, model="local", plan_fields="few", temperature=0)
        async with aclosing(plan_all(settings.model_copy(update={"answer_timeout_s": 120}), await all_tools())) as made:
            async for one in made:
                if one.plan is None:
                    faulty.append((one.prompt, one.error))
                else:
                    valid.append(one.prompt)
                if len(valid) == LEAST_VALID or len(faulty) > LEAST_VALID:
                    break  # it is decided
    assert len(valid) >= LEAST_VALID, faulty
