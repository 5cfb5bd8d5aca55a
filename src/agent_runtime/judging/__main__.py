"""The judging process: reads a schema from each line of its input, and writes a verdict to each line of its output.

Its first line says that it is ready. After `SLICE_SECONDS` of CPU time it ends, with verdicts on the lines so far. A
schema that crashes it has no verdict, so the parent sees which one that was.
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from agent_runtime.domain.schemas import OutOfTimeError, UnusableSchemaError, check_schema
from agent_runtime.judging import MEMORY_BYTES, SCHEMA_SECONDS, SLICE_SECONDS


def main() -> None:
    """Judge the schemas on the standard input."""
    most = int(SLICE_SECONDS + SCHEMA_SECONDS) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    with suppress(OSError):  # if memory runs out, this process is killed first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _say("ready")
    for line in sys.stdin.buffer:
        _say(_judge_line(line))
        if time.process_time() > SLICE_SECONDS:
            break


def _say(value: str | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _judge_line(line: bytes) -> str | None:
    try:
        check_schema(json.loads(line), SCHEMA_SECONDS)
    except OutOfTimeError:
        return f"judging its schema takes more than {SCHEMA_SECONDS:g} s"
    except UnusableSchemaError as error:
        return str(error)
    return None


main()
