"""`python -m agent_runtime` is `agent-runtime`."""

import sys

from agent_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
