"""The process that judges: a schema on each line of its input, a verdict on each line of its output.

Its first line says that it is ready. It ends by itself after `SLICE_SECONDS` of CPU time, with the lines that it has
done. A schema that it does not survive has no verdict; whoever started it sees which that is.
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
    """Judge what is on the standard input."""
    most = int(SLICE_SECONDS + SCHEMA_SECONDS) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    with suppress(OSError):  # where memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _say("ready")
    for line in sys.stdin.buffer:
        _say(_verdict(line))
        if time.process_time() > SLICE_SECONDS:
            break


def _say(value: str | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _verdict(line: bytes) -> str | None:
    try:
        check_schema(json.loads(line), SCHEMA_SECONDS)
    except OutOfTimeError:
        return f"judging its schema takes more than {SCHEMA_SECONDS:g} s"
    except UnusableSchemaError as error:
        return str(error)
    return None


main()
