"""The lower bound of a question to a model: a request by httpx and its JSON by orjson, in a process of their own.

The argument and the lines on standard input are those of `bare_runs.py`. Nothing is bounded, checked or kept.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx2
import orjson  # type: ignore[import-not-found]  # given by `uv run --with`, see planning.py


class Floor:
    """Asks one question over one client."""

    def __init__(self, given: dict[str, Any], client: httpx2.AsyncClient) -> None:
        self._client = client
        self._stream = given["stream"]
        self._chat = given["api"] != "responses"
        self._url = given["base_url"] + ("/chat/completions" if self._chat else "/responses")
        asked = {"role": "user", "content": given["prompt"]}
        told: dict[str, Any] = {"instructions": given["instructions"], "input": [asked]}
        if self._chat:
            told = {"messages": [{"role": "system", "content": given["instructions"]}, asked]}
        self._body = {"model": "test-model", "stream": self._stream, **told}

    async def ask(self) -> str:
        """Return the text of the answer."""
        headers = {"content-type": "application/json"}
        content = orjson.dumps(self._body)
        if not self._stream:
            answer = orjson.loads((await self._client.post(self._url, content=content, headers=headers)).content)
            return str(
                answer["choices"][0]["message"]["content"] if self._chat else answer["output"][0]["content"][0]["text"]
            )
        texts = []
        async with self._client.stream("POST", self._url, content=content, headers=headers) as response:
            rest = b""
            async for part in response.aiter_bytes():
                *lines, rest = (rest + part).split(b"\n")
                texts += [self._read(orjson.loads(line[6:])) for line in lines if line.startswith(b"data: {")]
        return "".join(texts)

    def _read(self, event: dict[str, Any]) -> str:
        if self._chat:
            return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


async def main() -> None:
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None), timeout=30) as client:
        floor = Floor(json.loads(sys.argv[1]), client)
        for line in iter(sys.stdin.readline, ""):
            cpu, began = time.process_time(), time.perf_counter()
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(floor.ask()) for _ in range(int(line))]
            if not all("steps" in task.result() for task in asked):
                sys.exit("an answer of another question came")
            print(json.dumps([time.process_time() - cpu, time.perf_counter() - began]), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
