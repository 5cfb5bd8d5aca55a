"""G9 at the port `SchemaJudge`: the judging process, and schemas that crash it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.judging.process import JudgeProcess
from waiting import eventually

Schema = dict[str, Any]
GOOD: Schema = {"type": "object"}
WRONG: Schema = {"type": "strng"}
ENDLESS: Schema = {
    "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {}},
    "$ref": "#/$defs/a0",
}


def find_judges() -> list[int]:
    """Return the ids of the judging processes of this process."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and b"agent_runtime.judging" in command:
            found.append(int(process.name))
    return found


async def test_every_schema_gets_its_verdict_in_order() -> None:
    verdicts = await JudgeProcess().judge([GOOD, WRONG, {"$ref": "#/nowhere"}, GOOD])
    assert verdicts[0] is verdicts[3] is None
    assert "strng" in str(verdicts[1])
    assert "PointerToNowhere" in str(verdicts[2])
    assert not find_judges()


@pytest.mark.slow
async def test_a_schema_that_takes_too_long_is_refused_and_the_next_is_judged() -> None:
    assert await JudgeProcess().judge([ENDLESS, GOOD]) == ["judging its schema takes more than 2 s", None]


@pytest.mark.slow
async def test_what_is_not_done_in_one_turn_is_done_in_the_next() -> None:
    verdicts = await JudgeProcess().judge([{**ENDLESS, "title": str(n)} for n in range(3)] + [GOOD])
    assert verdicts == ["judging its schema takes more than 2 s"] * 3 + [None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "verdicts"),
    [
        (signal.SIGXCPU, ["judging its schema takes too much time or memory", None]),
        (signal.SIGSEGV, ["judging its schema takes too much time or memory", None]),
        (signal.SIGKILL, []),  # no schema caused that
    ],
)
async def test_a_schema_that_the_process_does_not_survive_is_refused(end: int, verdicts: list[str | None]) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(JudgeProcess().judge([ENDLESS, GOOD]))
        (process,) = await eventually(find_judges)
        await eventually(lambda: _is_busy(process))
        os.kill(process, end)
    assert asked.result() == verdicts
    assert not find_judges()


def _is_busy(process: int) -> bool:
    """Return whether it has begun to judge: it has used more processor time than its start takes at most."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 1.4


@pytest.mark.slow
async def test_nobody_who_stops_waiting_leaves_a_process() -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(JudgeProcess().judge([ENDLESS]))
        await eventually(find_judges)
        asked.cancel()
    await eventually(lambda: not find_judges())
