"""A server that does not reach the network is told apart, where the service has variables for that and it has not."""

from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.errors import ServerUnavailableError
from pools import Place

OFFLINE = "npm error request to https://registry failed, reason: getaddrinfo ENOTFOUND registry"
PROXY = {"HTTPS_PROXY": "http://joe:s3cretword@127.0.0.1:9", "npm_config_registry": "http://127.0.0.1:9"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.environ |= PROXY
    return place


async def fail(place: Place, code: str, **more: Any) -> str:
    """Start a server that runs this code, and return the reason why it is unavailable."""
    entry = place.entry(**more)
    config = entry.config.model_copy(update={"args": ("-S", "-E", "-c", code)} | more.get("config", {}))
    async with place.pool(server_start_s=2) as pool:
        with pytest.raises(ServerUnavailableError) as failure:
            await pool.discover(entry.model_copy(update={"config": config}))
    return failure.value.reason


async def test_a_failure_of_the_network_names_the_variables_and_how_to_pass_them_on(place: Place) -> None:
    reason = await fail(place, f"import sys; sys.exit({OFFLINE!r})")
    assert "the service has HTTPS_PROXY, npm_config_registry set" in reason
    assert 'HTTPS_PROXY: "${env:HTTPS_PROXY}" into config.env' in reason
    assert "s3cretword" not in reason


@pytest.mark.slow
async def test_so_does_a_start_that_hangs(place: Place) -> None:
    assert "the service has HTTPS_PROXY" in await fail(place, "import time; time.sleep(60)")


async def test_any_other_failure_does_not(place: Place) -> None:
    assert "HTTPS_PROXY" not in await fail(place, "raise IndexError('list index out of range')")


async def test_what_the_process_gets_is_not_named(place: Place) -> None:
    place.inherited = {"HTTPS_PROXY": PROXY["HTTPS_PROXY"]}
    reason = await fail(place, f"import sys; sys.exit({OFFLINE!r})")
    assert "the service has npm_config_registry set" in reason
    place.inherited |= {"npm_config_registry": PROXY["npm_config_registry"]}
    assert "the service has" not in await fail(place, f"import sys; sys.exit({OFFLINE!r})")


async def test_a_process_that_may_not_use_the_network_is_told_nothing(place: Place) -> None:
    reason = await fail(place, f"import sys; sys.exit({OFFLINE!r})", sandbox={"network": False, "mode": "auto"})
    assert "the service has" not in reason
