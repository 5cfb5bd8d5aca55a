"""Servers that install their package at the first start, like `npx PACKAGE`."""

import sys
from pathlib import Path

import pytest
import yaml

from command_line import Folder

FILES_SERVER = """
import sys
from pathlib import Path
from agent_runtime.builtin.servers import create
from agent_runtime.domain.tools import BuiltinConfig

folder = Path(sys.argv[1])
config = BuiltinConfig.model_validate({"server": "filesystem", "root": "files"})
create(config, base_dir=folder, data_dir=folder).serve()
"""


@pytest.mark.slow
def test_a_plan_waits_for_the_server_that_it_needs_while_that_is_being_installed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    runner = tmp_path / "npx"
    runner.write_text('#!/bin/sh\nsleep 3\nexec "$@"\n', encoding="utf-8")
    runner.chmod(0o755)
    config = {"command": "./npx", "args": [sys.executable, "-c", FILES_SERVER, str(tmp_path)]}
    entry = {"id": "files", "type": "local_stdio", "config": config}
    (tmp_path / "tool_registry.yaml").write_text(yaml.safe_dump({"tool_registry": [entry]}), encoding="utf-8")
    folder.env["AGENT_RUNTIME_LIMITS__SERVER_START_S"] = "2"
    task = folder.json("run", "write hello to a.txt", code=3)
    assert [step["server"] for step in task["plan_object"]["steps"]] == ["files"]
