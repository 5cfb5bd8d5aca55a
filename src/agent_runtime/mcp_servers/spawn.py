"""Turns an entry of the registry into a command to start: its environment, its folder, its sandbox."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp.client.stdio import get_default_environment

from agent_runtime.config import NETWORK_VARIABLES, PACKAGE_VARIABLES, Secrets
from agent_runtime.domain.errors import ConfigurationError, ServerUnavailableError
from agent_runtime.domain.tools import StdioConfig, StdioServer
from agent_runtime.mcp_servers.own_files import OwnFiles
from agent_runtime.mcp_servers.sandbox import Confined, confine

_DEFAULT_ENV = {"npm_config_yes": "true"}
"""`npx PACKAGE` asks before it installs a package, and nobody can answer: the registry entry is the answer."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """The command to start, its folder and its environment. `command` is the one that the entry names.

    `stop_s` is how long it may take to stop in all. `withheld` are the variables for proxies, certificates and packages
    that the service has and the process does not get; none if it has no network.
    """

    confined: Confined
    cwd: Path
    env: Mapping[str, str]
    command: str
    stop_s: float
    withheld: tuple[str, ...] = ()


def prepare(
    server: StdioServer, secrets: Secrets, base_dir: Path, own: OwnFiles, inherited: Mapping[str, str]
) -> Spawn:
    """Return the command of an entry, with its secrets expanded and the service's files hidden from it.

    `inherited` are variables that every server gets, unless its entry says otherwise. May block for the first probe of
    bubblewrap.
    Raises: ServerUnavailableError naming what is missing and what to do.
    """
    config = server.config
    try:
        given = {name: secrets.expand(value) for name, value in config.env.items()}
        env = get_default_environment() | _DEFAULT_ENV | dict(inherited) | given
        command, *args = (secrets.expand(word) for word in (config.command, *config.args))
        cwd = _check_folder(base_dir / (config.cwd or "."))
        argv = (_find(command, cwd, env, config), *args)
        confined = confine(argv, server.sandbox, cwd, base_dir, own, (*given.values(), *inherited.values()))
        own_variables = secrets.read_variables((*NETWORK_VARIABLES, *PACKAGE_VARIABLES))
        withheld = tuple(name for name in own_variables if name not in env) if server.sandbox.network else ()
        return Spawn(confined, cwd, env, config.command, server.stop_s, withheld)
    except ConfigurationError as error:
        raise ServerUnavailableError(server.id, secrets.redactor.redact_message(str(error))) from error


def _check_folder(path: Path) -> Path:
    """Return the folder to start in. Raises: ConfigurationError where it is missing, or was replaced by a link."""
    if not path.is_dir():
        raise ConfigurationError(f"its working directory {str(path)!r} does not exist; correct config.cwd.")
    if path.is_absolute() and path.resolve() != path:
        raise ConfigurationError(
            f"its working directory {str(path)!r} has been replaced by a link to {str(path.resolve())!r} since the "
            "registry was loaded. Reload the registry, so that plans are made for the folder that is there now."
        )
    return path


def _find(command: str, cwd: Path, env: Mapping[str, str], config: StdioConfig) -> str:
    """Return the path of a command, given as in `config`, expanded. Raises: ConfigurationError."""
    named = str(cwd / command) if "/" in command else command
    found = shutil.which(named, path=env.get("PATH"))
    if found is None:
        raise ConfigurationError(
            f"its command {command!r} was not found or is not executable. {_explain_command_line(config)}"
            "Install it, or correct config.command (a name is looked up on PATH, a path with a slash is taken from "
            "config.cwd)."
        )
    return found


def _explain_command_line(config: StdioConfig) -> str:
    """Return how to write the command if it looks like a whole command line, else an empty text."""
    try:
        program, *args = shlex.split(config.command)
    except ValueError:
        return ""
    if not args:
        return ""
    words = json.dumps([*args, *config.args], ensure_ascii=False)
    return f"It looks like a whole command line: write command: {json.dumps(program)} and args: {words}. "


_OF_THE_NETWORK = re.compile(
    r"ENOTFOUND|ECONN|ETIMEDOUT|EAI_AGAIN|getaddrinfo|name resolution|resolve host|network|proxy|certificate|\bCERT_"
    r"|\bSSL|\bTLS|tunnel|connection|connect to|fetch failed|failed to fetch|timed? ?out|registry",
    re.IGNORECASE,
)
"""Words in the last output of programs that do not reach the network."""


def explain_withheld(spawn: Spawn, told: str) -> str:
    """Return how to give a process what it may need for the network, if it has failed for want of that.

    `told`: how the process has ended; empty while it has not, as a download that hangs does not. Else an empty text.
    """
    if not spawn.withheld or (told and not _OF_THE_NETWORK.search(told)):
        return ""
    names = ", ".join(spawn.withheld)
    first = spawn.withheld[0]
    return (
        f"if it needs the network: the service has {names} set, and the process gets only what its entry names: "
        f'write {first}: "${{env:{first}}}" into config.env of its entry, or set servers_inherit_proxy: true '
        "in config.yaml for proxies and certificates"
    )
