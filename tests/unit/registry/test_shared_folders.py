"""The folders that all replicas must share are named, by each at its start and by `agent-runtime doctor`."""

from pathlib import Path

import pytest

from command_line import Folder
from harness import House


async def test_a_replica_names_the_folders_that_all_must_share_at_its_start(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(tmp_path)
    house.use_postgresql(postgres_url)
    async with house.open():
        pass
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "shared_folders" in line]
    assert "must be one volume" in line
    assert f"filesystem ({tmp_path / 'files'})" in line
    assert "ledger" not in line  # it starts in the folder of the registry, and no folder of its own is named
    assert "todo" not in line  # its list is in the database


@pytest.mark.sqlite
async def test_one_process_on_sqlite_names_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with House(tmp_path).open():
        pass
    assert "shared_folders" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_names_the_folders_that_all_replicas_must_share(tmp_path: Path, postgres_url: str) -> None:
    folder = Folder(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    server = {"command": "node", "args": ["server.js"], "cwd": "work"}
    folder.write_registry({"id": "builder", "type": "local_stdio", "config": server})
    folder.env |= {"AGENT_RUNTIME_STORAGE__URL": postgres_url, "AGENT_RUNTIME_AUTH__MODE": "anonymous"}
    findings = [one for one in folder.json("doctor", code=1)["findings"] if one["check"] == "replicas"]
    assert [one["state"] for one in findings] == ["ok"]
    assert f"filesystem ({folder.files}), builder ({work})" in findings[0]["detail"]
