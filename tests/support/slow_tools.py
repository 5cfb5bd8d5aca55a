"""A service with a tool that takes its time, for tests of what happens meanwhile."""

import sys
from pathlib import Path

import yaml

from command_line import LEDGER_SERVER
from serving import Service


def slow_service(folder: Path, delay_s: float, *, port: int = 0) -> Service:
    """Return a service whose tool `ledger.look` takes `delay_s` seconds, and may be called again."""
    service = Service(folder, server={"port": port}, limits={"cancel_grace_s": 0.1})
    config = {
        "command": sys.executable,
        "args": ["-S", "-E", str(LEDGER_SERVER)],
        "env": {"LEDGER": str(folder / "ledger.txt"), "DELAY_S": f"{delay_s:g}"},
    }
    tools = {"look": {"idempotent": True, "effect": "read", "open_world": False}}
    ledger = {"id": "ledger", "type": "local_stdio", "config": config, "tools": tools}
    registry = service.settings.tool_registry
    registry.write_text(yaml.safe_dump({"tool_registry": [ledger]}), encoding="utf-8")
    return service
