"""The command line, `agent-runtime`: one of the doors to the service.

Results go to standard output, everything else to standard error. Exit codes: 0 success (for a task: completed),
1 failure, 2 wrong usage or configuration, 3 a person is needed, 130 interrupted. Modules are imported where they are
used, so that `--help` and requests to a running service do not load the libraries of the service.
"""

import gc
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from agent_runtime.cli.arguments import parse
from agent_runtime.cli.output import say
from agent_runtime.client import ClientError, KeyRefusedError
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, InvalidInputError

__all__ = ["main"]

_GIVE_A_KEY = (
    "Give the command one: set AGENT_RUNTIME_API_KEY, or name its file with --key-file. "
    "The operator makes keys with `agent-runtime keys new`."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises: SystemExit if the command line is wrong."""
    gc.set_threshold(20_000, 20, 50)  # modules and schemas stay; to look through them again takes a tenth of a command
    options = parse(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # do not fail on characters that the terminal cannot show
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        say(f"agent-runtime: {error}")
        return 2
    except InvalidInputError as error:
        for fault in error.faults:
            say(f"agent-runtime: {fault}")
        return 1
    except (AgentRuntimeError, ClientError) as error:
        say(f"agent-runtime: {error}")
        if isinstance(error, KeyRefusedError):
            say(_GIVE_A_KEY)
        return 1
    except BrokenPipeError:
        # The reader of our output has closed it. Keep the interpreter from flushing the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    return code
