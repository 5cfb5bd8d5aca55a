"""The verdicts on the schemas of one server. Each schema is judged once, also over restarts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from pydantic_core import to_json

from agent_runtime.domain.schemas import check_schemas
from agent_runtime.domain.tools import JudgedDefinition, ToolDefinition
from agent_runtime.domain.values import JsonObject, digest_of_bytes

JudgeSchemas = Callable[[Sequence[JsonObject]], Awaitable[list[str | None]]]
"""`SchemaJudge.judge`."""

_QUICK_SECONDS = 0.1
"""The CPU time that all new schemas of a server together may take in this process."""


class Verdicts:
    """Caches the verdicts on a server's schemas. `judge` gets those that take too long in this process."""

    def __init__(self, judge: JudgeSchemas) -> None:
        self._judge = judge
        self._known: dict[str, str | None] = {}

    def remember(self, judged: Iterable[JudgedDefinition]) -> None:
        """Take over the verdicts of an earlier process."""
        self._known = {_digest_schema(one.definition): one.fault for one in judged}

    async def judge(self, definitions: Sequence[ToolDefinition]) -> list[JudgedDefinition]:
        """Return the definitions with their verdicts, in order; those that could not be judged are left out.

        Verdicts on definitions that are no longer listed are forgotten.
        """
        digests = [_digest_schema(one) for one in definitions]
        listed = {digest: one.arguments_schema for digest, one in zip(digests, definitions, strict=True)}
        self._known = {digest: fault for digest, fault in self._known.items() if digest in listed}
        await self._judge_all({digest: schema for digest, schema in listed.items() if digest not in self._known})
        return [
            JudgedDefinition(definition=definition, fault=self._known[digest])
            for digest, definition in zip(digests, definitions, strict=True)
            if digest in self._known
        ]

    async def _judge_all(self, new: Mapping[str, JsonObject]) -> None:
        if new:
            self._known |= await asyncio.to_thread(check_schemas, new, _QUICK_SECONDS)
        left = [digest for digest in new if digest not in self._known]
        if left:
            verdicts = await self._judge([new[digest] for digest in left])
            self._known |= dict(zip(left, verdicts, strict=False))


def _digest_schema(definition: ToolDefinition) -> str:
    return digest_of_bytes(to_json(definition.inputSchema, inf_nan_mode="constants"))
