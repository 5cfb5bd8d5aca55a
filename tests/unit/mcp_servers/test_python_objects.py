"""The objects that an entry of type `python` may name, and the errors for all others."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.server import Server

from agent_runtime.domain.tools import PythonConfig, PythonServer
from agent_runtime.domain.values import digest_of_bytes
from agent_runtime.mcp_servers.python_objects import PythonObjectError, load_server


def entry(folder: Path, text: str, path: str = "") -> PythonServer:
    """Write a module of its own for each test, and return an entry that names an object in it."""
    name = f"mod_{folder.name}"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    config = PythonConfig(object=name + path, folder=str(folder), source=digest_of_bytes(text.encode()))
    return PythonServer(id="own", type="python", config=config)


BAD = [
    ("x = 1", ":x", "it names a value of type int: name an MCPServer, a list of functions, or a module of them"),
    ("x = 1", ":y.z", "has no y.z"),
    ("import json\n_x = 1\ndef _own() -> None: ...", "", "it holds no functions"),
    ("def f(a, b: int, c): ...", "", "f: say the types of its parameters a, c"),
    ("def f(*, _a: int): ...", "", "f is no tool: "),
    ("x = [5]", ":x", "its list holds a value of type int, which is no function"),
    ("def f() -> None: ...\nx = (f, f)", ":x", "it holds two functions called f"),
    ("\nimport sys\nsys.exit(3)", "", "cannot be imported: SystemExit: 3, at "),
    ("\nraise KeyError('a')", "", ".py:2"),
    ("def f(:", "", "cannot be imported: SyntaxError: "),
    ("import no_such_package", "", "ModuleNotFoundError: No module named 'no_such_package'"),
]


@pytest.mark.parametrize(("text", "path", "said"), BAD, ids=range(len(BAD)))
def test_what_is_no_server_is_refused_with_the_reason(tmp_path: Path, text: str, path: str, said: str) -> None:
    with pytest.raises(PythonObjectError) as caught:
        load_server(entry(tmp_path, text, path))
    assert said in str(caught.value)


def test_a_file_that_is_another_one_than_the_registry_knows_is_not_run(tmp_path: Path) -> None:
    known = entry(tmp_path, "def f() -> None: ...")
    entry(tmp_path, "raise SystemExit")
    with pytest.raises(PythonObjectError, match="has changed since the tool registry was loaded: reload"):
        load_server(known)


def test_a_module_with_the_name_of_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logging.py").write_text("def f() -> None: ...", encoding="utf-8")
    config = PythonConfig(object="logging", folder=str(tmp_path))
    with pytest.raises(PythonObjectError, match="the service has another module logging: give the module of"):
        load_server(PythonServer(id="own", type="python", config=config))


def test_a_module_in_a_package_finds_what_is_beside_it(tmp_path: Path) -> None:
    package = tmp_path / f"pack_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "words.py").write_text("HELLO = 'hello'", encoding="utf-8")
    text = "from .words import HELLO\ndef greet() -> str:\n    return HELLO\n"
    (package / "tools.py").write_text(text, encoding="utf-8")
    config = PythonConfig(object=f"{package.name}.tools", folder=str(tmp_path))
    assert isinstance(load_server(PythonServer(id="own", type="python", config=config)), Server)


@pytest.fixture
def root_level() -> Iterator[int]:
    level = logging.getLogger().level
    yield level
    logging.getLogger().setLevel(level)


def test_the_log_of_the_service_stays_as_it_is(tmp_path: Path, root_level: int) -> None:
    handlers = list(logging.getLogger().handlers)
    load_server(entry(tmp_path, "import logging\nlogging.basicConfig(level=5, force=True)\ndef f() -> None: ..."))
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, root_level)
