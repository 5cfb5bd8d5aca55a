"""Starts the judging process, and interprets how far it came."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence

import structlog
from pydantic_core import to_json

from agent_runtime.config import before_exec
from agent_runtime.domain.values import JsonObject
from agent_runtime.judging import SLICE_SECONDS

log = structlog.get_logger()

_BEFORE_EXEC = before_exec()
_ALL_SECONDS = 60.0
_WAIT_S = 60.0
_FATAL = frozenset({-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT})
"""The exit codes by which a schema ends the process. Any other failure is the machine's."""


class JudgeProcess:
    """Judges schemas in a process with limits, with the shape of `ports.SchemaJudge`. Only one process
    runs at a time.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def judge(self, schemas: Sequence[JsonObject]) -> list[str | None]:
        """Return one verdict for each schema, in order: None if it can be used, else the reason.

        The list is shorter if `_ALL_SECONDS` of CPU time did not suffice or the process failed.
        """
        verdicts: list[str | None] = []
        for _ in range(int(_ALL_SECONDS / SLICE_SECONDS)):
            if len(verdicts) == len(schemas):
                break
            async with self._turn:
                found = await _run(schemas[len(verdicts) :])
            if not found:
                break
            verdicts += found
        return verdicts


async def _run(schemas: Sequence[JsonObject]) -> list[str | None]:
    """Judge as many schemas as one process can."""
    given = b"".join(to_json(schema, inf_nan_mode="constants") + b"\n" for schema in schemas)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-m", __package__ or ""),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={},
            start_new_session=True,
            preexec_fn=_BEFORE_EXEC,
        )
    except OSError as error:
        log.warning("schemas_not_judged", reason=f"the process that judges them cannot be started: {error}")
        return []
    try:
        async with asyncio.timeout(_WAIT_S):
            said, _ = await process.communicate(given)
    except TimeoutError:
        log.warning("schemas_not_judged", reason=f"the process that judges them did not end within {_WAIT_S:g} s")
        return []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    ready, *verdicts = [json.loads(line) for line in said.split(b"\n")[:-1]] or [None]
    if process.returncode:
        log.warning("schema_judge_failed", code=process.returncode, judged=len(verdicts))
        if ready and process.returncode in _FATAL:
            verdicts.append("judging its schema takes too much time or memory")
    return verdicts
