"""The lower bound of planning: bare runs of openai-agents in a process of their own.

The argument is a JSON object with `base_url`, `api`, `stream`, `instructions` and `prompt`. For each number on standard
input, the script makes that many concurrent runs, and prints a JSON object with their CPU and wall time.
"""

import asyncio
import json
import sys
import time

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI


async def main() -> None:
    given = json.loads(sys.argv[1])
    set_tracing_disabled(disabled=True)
    client = AsyncOpenAI(base_url=given["base_url"], api_key="unused", max_retries=0)
    kind = OpenAIResponsesModel if given["api"] == "responses" else OpenAIChatCompletionsModel
    agent = Agent(
        name="planner",
        instructions=given["instructions"],
        model=kind("test-model", client),
        model_settings=ModelSettings(include_usage=True) if given["api"] != "responses" else ModelSettings(),
    )
    config = RunConfig(tracing_disabled=True)

    async def once() -> None:
        if given["stream"]:
            result = Runner.run_streamed(agent, given["prompt"], run_config=config)
            async for _ in result.stream_events():
                pass
            output = result.final_output
        else:
            output = (await Runner.run(agent, given["prompt"], run_config=config)).final_output
        if "steps" not in output:
            sys.exit(f"an answer of another question came: {output}")

    for line in iter(sys.stdin.readline, ""):
        cpu, began = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(line)):
                group.create_task(once())
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - began]), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
