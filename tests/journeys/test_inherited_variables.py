"""The environment that servers inherit from the service when they are started as processes, and the setting for it."""

import sys
from pathlib import Path

import pytest

from harness import House
from waiting import eventually

SERVER = Path(__file__).parents[1] / "servers" / "telling_server.py"


@pytest.mark.parametrize("inherit", [True, False])
async def test_proxies_and_certificates_reach_servers_by_one_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, inherit: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter22@proxy.example:3128")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "/etc/company.pem")
    monkeypatch.setenv("PLANTED", "never")
    house, told = House(tmp_path), tmp_path / "told.txt"
    house.write_registry(config={"command": sys.executable, "args": ["-S", "-E", str(SERVER), str(told)]})
    house.settings = house.settings.model_copy(update={"servers_inherit_proxy": inherit})
    async with house.open() as runtime:
        await eventually(lambda: "ledger/tell" in runtime.registry.tools())
        shown = str(runtime.registry.tools())
    given = told.read_text(encoding="utf-8")
    assert ("http://me:hunter22@proxy.example:3128" in given) is inherit
    assert ("/etc/company.pem" in given) is inherit
    assert "never" not in given
    assert "hunter22" not in shown
