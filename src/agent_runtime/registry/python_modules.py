"""Find the file of a Python module without importing it."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from agent_runtime.domain.errors import ConfigurationError


def find_source(module: str, folder: Path) -> Path:
    """Return the file of a module, which is looked for in `folder` and then where Python looks.

    Raises: ConfigurationError if there is none, or if it is not written in Python.
    """
    importlib.invalidate_caches()
    search: Sequence[str] | None = [str(folder), *sys.path]
    name, origin = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, search) if search is not None else None
        if spec is None:
            raise ConfigurationError(
                f"there is no module {name} in {folder}, nor where Python looks: put it there, name its folder in "
                "config.folder, or install it where the service is installed"
            )
        search, origin = spec.submodule_search_locations, spec.origin
    if origin is None or not origin.endswith(".py"):
        raise ConfigurationError(f"the module {module} is not a file of Python code: name the module with the object")
    return Path(origin).resolve()
