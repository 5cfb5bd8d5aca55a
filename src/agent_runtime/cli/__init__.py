"""The command line: `agent-runtime`, one front door among others.

Results go to standard output, everything else to standard error. Exit codes: 0 it worked (for a task: completed),
1 it did not, 2 the command line or the configuration is wrong, 3 a person is needed, 130 interrupted.
Modules are imported where they are used: `--help` and a question to a running service should not wait for the
libraries of the service.
"""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from agent_runtime.cli.arguments import parse
from agent_runtime.cli.output import say
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code. Raises: SystemExit where the command line itself is wrong."""
    options = parse(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal has no letters for is not an error
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        say(f"agent-runtime: {error}")
        return 2
    except AgentRuntimeError as error:
        say(f"agent-runtime: {error}")
        return 1
    except BrokenPipeError:
        # Whoever read our output has enough of it; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    return code
