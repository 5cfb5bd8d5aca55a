"""Import the object that an entry of type `python` names, and make an MCP server of it.

The code is the operator's, and runs in this process with all its rights.
"""

import functools
import importlib
import inspect
import linecache
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog
from mcp.server import MCPServer, Server
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, create_model

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import PythonServer
from agent_runtime.domain.values import digest_of_bytes
from agent_runtime.registry.python_modules import find_source
from agent_runtime.telemetry import keep_logging

log = structlog.get_logger(__name__)

_importing = threading.Lock()
_imported: dict[str, str] = {}
"""The digest of the source from which each module was imported, by its name."""


class PythonObjectError(Exception):
    """The object of an entry cannot be imported, or is no server. The message says why."""


def load_server(entry: PythonServer) -> Server[Any]:
    """Return the object of an entry as an MCP server. Its module is imported again if its file is another one now.

    Raises: PythonObjectError.
    """
    config = entry.config
    with _importing, keep_logging():
        found: Any = _import(config.module, Path(config.folder or "."), config.source)
        for name in config.attributes:
            if not hasattr(found, name):
                raise PythonObjectError(f"the module {config.module} has no {'.'.join(config.attributes)}")
            found = getattr(found, name)
        return _make_server(entry.id, found)


def _import(name: str, folder: Path, source: str | None) -> ModuleType:
    """Return a module made of exactly the source with this digest. Raises: PythonObjectError."""
    try:
        file = find_source(name, folder)
        text = file.read_bytes()
    except (ConfigurationError, OSError) as error:
        raise PythonObjectError(str(error)) from error
    found = digest_of_bytes(text)
    if source is not None and found != source:
        raise PythonObjectError(f"{file} has changed since the tool registry was loaded: reload the tool registry")
    known = sys.modules.get(name)
    if known is not None and _imported.get(name, found) == found:
        if Path(getattr(known, "__file__", None) or "").resolve() != file:
            raise PythonObjectError(f"the service has another module {name}: give the module of {file} another name")
        _imported[name] = found
        return known
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for what the module itself imports
    try:
        module = _run(name, file, text)
    except (Exception, SystemExit) as error:  # the edge of somebody else's code, which may raise anything
        sys.modules.pop(name, None)
        _imported.pop(name, None)
        raise PythonObjectError(f"the module {name} cannot be imported: {_describe(error)}") from error
    _imported[name] = found
    return module


def _run(name: str, file: Path, text: bytes) -> ModuleType:
    """Run the source of a module, as an import does. The bytes that were read are run, whatever the file holds now."""
    parent, _, own = name.rpartition(".")
    holder = importlib.import_module(parent) if parent else None
    folder = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folder)
    assert spec is not None  # noqa: S101 - it is a file of Python code
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    linecache.checkcache(str(file))
    exec(compile(text, str(file), "exec"), module.__dict__)  # noqa: S102 - the operator named it to be run
    if holder is not None:
        setattr(holder, own, module)
    return module


def _describe(error: BaseException) -> str:
    """Return an error with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _make_server(name: str, found: Any) -> Server[Any]:
    match found:
        case MCPServer():
            return found._lowlevel_server  # noqa: SLF001 - the SDK has no other way to serve it on given streams
        case Server():
            return found
        case ModuleType():
            functions = list(_find_functions(found))
        case list() | tuple():
            functions = list(found)
        case _:
            kind = type(found).__name__
            raise PythonObjectError(
                f"it names a value of type {kind}: name an MCPServer, a list of functions, or a module of them"
            )
    if not functions:
        raise PythonObjectError("it holds no functions")
    server = MCPServer(name, tools=_make_tools(functions))
    return server._lowlevel_server  # noqa: SLF001 - likewise


def _find_functions(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """Yield the functions that a module defines and does not call private; those in `__all__` if it has one."""
    public = getattr(module, "__all__", None)
    for name, found in vars(module).items():
        if inspect.isfunction(found) and (
            name in public if public is not None else found.__module__ == module.__name__ and name[0] != "_"
        ):
            yield found


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _make_tools(functions: Sequence[Any]) -> list[Tool]:
    """Return a tool for each function. Raises: PythonObjectError."""
    made: dict[str, Tool] = {}
    for function in functions:
        if not callable(function):
            raise PythonObjectError(f"its list holds a value of type {type(function).__name__}, which is no function")
        name = getattr(function, "__name__", type(function).__name__)
        try:
            parameters = inspect.signature(function).parameters.values()
            tool = Tool.from_function(_tell_errors(function, name), name=name)
            arguments = create_model(f"{name}_arguments", __base__=(_Closed, tool.fn_metadata.arg_model))
            schema = arguments.model_json_schema(by_alias=True)
        except Exception as error:  # likewise: a signature may hold anything
            raise PythonObjectError(f"{name} is no tool: {_describe(error)}") from error
        if bare := [parameter.name for parameter in parameters if parameter.annotation is parameter.empty]:
            raise PythonObjectError(f"{name}: say the types of its parameters {', '.join(bare)}")
        if name in made:
            raise PythonObjectError(f"it holds two functions called {name}")
        metadata = tool.fn_metadata.model_copy(update={"arg_model": arguments})
        made[name] = tool.model_copy(update={"fn_metadata": metadata, "parameters": schema})
    return list(made.values())


def _tell_errors(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function with its exceptions as errors of the tool, whose text the caller gets.

    A function that is not `async` runs in a thread of its own, so that it may block.
    """

    @contextmanager
    def report_errors() -> Iterator[None]:
        try:
            yield
        except (ToolError, MCPError):
            raise
        except Exception as error:
            log.exception("python_tool_failed", tool=name)
            raise ToolError(f"{type(error).__name__}: {error}") from error

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def tell_async(*given: Any, **named: Any) -> Any:
            with report_errors():
                return await function(*given, **named)

        return tell_async

    @functools.wraps(function)
    def tell(*given: Any, **named: Any) -> Any:
        with report_errors():
            return function(*given, **named)

    return tell
