"""The model server as a process: `python -m model_server --script FILE`, in the folder of this package."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from model_server import ModelServer
from model_server.replies import Rule, Text, read_rules


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A model on a loopback port that says what its script tells it.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0, help="how long it thinks before each answer")
    parser.add_argument("--key", help="the API key that it asks for")
    parser.add_argument("--script", type=Path, help="a JSON file of rules; without it every answer is the text `ok`")
    options = parser.parse_args()
    models = ModelServer(port=options.port, key=options.key, delay_s=options.delay_ms / 1000)
    models.script(read_rules(options.script) if options.script else [Rule("", (Text("ok"),))])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with models:
        sys.stdout.write(f"{models.base_url}\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
