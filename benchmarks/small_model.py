"""Measures how many of 20 simple requests a model of 135 million parameters turns into valid plans.

The server is llama.cpp's, with one thread and SmolLM2-135M-Instruct; both are installed from their packages. Each plan
is made as the service makes it, with up to two corrections, and judged by the contract. The output is each plan, how
many were valid, and how many were the one call that was asked for.

    uv run python benchmarks/small_model.py [--fields few] [--temperature 0]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.plan import Plan, ToolStep
from real_models import run_llama, unpack_model
from simple_prompts import Outcome, plan_all
from unit.planners.planning import all_tools

CONTEXT_TOKENS = 8192
LEAST_VALID = 10


def describe(plan: Plan | None) -> str:
    return "; ".join(
        f"{step.key} {json.dumps(step.arguments)}" if isinstance(step, ToolStep) else f"agent {step.instruction!r}"
        for step in (plan.steps if plan else ())
    )


def print_outcome(one: Outcome) -> None:
    verdict = "right" if one.is_right else "valid" if one.plan else "none"
    print(f"{verdict:6}{one.seconds:6.1f} s  {one.prompt}\n{'':16}{one.error or describe(one.plan)}", flush=True)


async def measure(settings: OpenAISettings) -> None:
    outcomes: list[Outcome] = []
    async for one in plan_all(settings, await all_tools()):
        print_outcome(one)
        outcomes.append(one)
    valid, right = sum(one.plan is not None for one in outcomes), sum(one.is_right for one in outcomes)
    print(f"{valid} of {len(outcomes)} plans are valid, {right} are what was asked for")
    print(f"Target: at least {LEAST_VALID} valid: {'met' if valid >= LEAST_VALID else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", choices=["few", "all"], default="few")
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        weights = unpack_model(Path(name))
        with run_llama(weights, context_tokens=CONTEXT_TOKENS) as server:
            asked = {"plan_fields": options.fields, "temperature": options.temperature}
            settings = {"base_url": server.base_url, "model": "local", "api": "chat_completions", **asked}
            asyncio.run(measure(OpenAISettings.model_validate(settings)))


if __name__ == "__main__":
    main()
