"""Plans of a real model of 135 million parameters."""

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
    with run_llama(unpack_model(tmp_path), context_tokens=8192) as server:
        settings = OpenAISettings(base_url=server.base_url, model="local", plan_fields="few", temperature=0)
        outcomes = await plan_all(settings.model_copy(update={"answer_timeout_s": 120}), await all_tools())
    assert len(outcomes) == len(PROMPTS) == 20
    valid = [one.prompt for one in outcomes if one.plan is not None]
    assert len(valid) >= LEAST_VALID, [(one.prompt, one.error) for one in outcomes]
