"""Confines a stdio server: in namespaces where bubblewrap works, else by the parent-death signal (G10)."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent_runtime.config import die_with_parent
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import Sandbox
from agent_runtime.mcp_servers.mounts import Start, mount_options
from agent_runtime.mcp_servers.own_files import OwnFiles, resolve_links

_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--new-session", "--die-with-parent", "--cap-drop", "ALL")
_USER_NAMESPACES = (("--unshare-user", "--disable-userns"), ("--unshare-user",), ())
"""The options to try, the strictest first: a user namespace that forbids further ones, a plain one, and none (root
only).
"""

_PROBE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Confined:
    """A command ready to be spawned. `before_exec` runs in the child if no helper program does its work.

    `wrapped` is True if the spawned program is bubblewrap, which starts the command below a reaper in its namespace.
    """

    argv: tuple[str, ...]
    before_exec: Callable[[], None] | None = None
    wrapped: bool = False


_WRAPPERS = 2
"""Bubblewrap itself, and the first process of the namespace."""


def find_server_process(pid: int, confined: Confined) -> int:
    """Return the id of the server's own process, where `pid` is the one that was spawned.

    A signal to bubblewrap would not reach the server: with `--die-with-parent` it is killed instead.
    Raises: ProcessLookupError where it cannot be found, or has ended.
    """
    for _ in range(_WRAPPERS if confined.wrapped else 0):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        except OSError:
            children = []
        if not children:
            raise ProcessLookupError(pid)
        pid = int(children[0])
    return pid


@dataclass(frozen=True, slots=True)
class _Bubblewrap:
    """The path of bubblewrap, and the options for all namespaces that work on this machine."""

    path: str
    options: tuple[str, ...]


def confine(
    argv: Sequence[str],
    sandbox: Sandbox,
    cwd: Path,
    base_dir: Path,
    own: OwnFiles = OwnFiles(),  # noqa: B008 - a frozen value
    texts: Sequence[str] = (),
) -> Confined:
    """Return the command in the strictest confinement that its entry asks for and this machine offers.

    `argv[0]` is a path that exists. Relative paths of the sandbox begin at `base_dir`. Bubblewrap hides the files in
    `own`. `texts` are other values of the entry that may name files, such as its variables.
    Raises: ConfigurationError where the entry asks for a confinement that this machine cannot offer.
    """
    if sandbox.mode == "off":
        return _tie_to_parent(argv)
    found = _probe_bubblewrap()
    if isinstance(found, _Bubblewrap):
        start = Start(tuple(argv), cwd, tuple(texts))
        network = () if sandbox.network else ("--unshare-net",)
        mounts = mount_options(sandbox, start, base_dir, own, all_devices=not _can_read_disks())
        options = (*found.options, *network, *mounts, "--chdir", str(resolve_links(cwd)))
        return Confined((found.path, *options, "--", *argv), wrapped=True)
    if sandbox.mode == "required" or sandbox.is_limited:
        asked = "sandbox.mode: required" if sandbox.mode == "required" else "sandbox.network, read and write"
        raise ConfigurationError(
            f"Bubblewrap is needed for {asked}, and {found}. Install bubblewrap and allow user "
            "namespaces, or take the sandbox out of the entry."
        )
    return _tie_to_parent(argv)


def describe_level() -> str:
    """Describe for people how servers with `sandbox.mode: auto` are confined on this machine. May take
    seconds, once.
    """
    found = _probe_bubblewrap()
    if isinstance(found, _Bubblewrap):
        without = "" if "--unshare-user" in found.options else ", without a user namespace"
        return f"pid namespace (bubblewrap{without})"
    signalled = " and parent-death signal" if sys.platform == "linux" else ""
    return f"process group{signalled} ({found})"


def find_bubblewrap_problem() -> str | None:
    """Return why bubblewrap cannot be used on this machine; None if it works."""
    found = _probe_bubblewrap()
    return None if isinstance(found, _Bubblewrap) else found


def describe_reach(sandbox: Sandbox) -> str:
    """Describe for people what a server with this sandbox can reach on this machine."""
    if sandbox.mode == "off" or find_bubblewrap_problem() is not None:
        if sandbox.mode == "required" or (sandbox.mode == "auto" and sandbox.is_limited):
            return "nothing: it does not start, as its sandbox needs bubblewrap"
        return "without bubblewrap: all that this user can, also the service's own files and other processes"
    network = "the network" if sandbox.network else "no network"
    writes = f"writes {', '.join(sandbox.write)}" if sandbox.write else "writes nothing"
    if sandbox.read:
        return f"{network}; reads {', '.join(sandbox.read)} and the system's programs; {writes}"
    files = f"reads all files but the service's own; {writes}"
    if not sandbox.write:
        files = "reads and writes all files of this user but the service's own"
    sockets = "sockets in /run (docker, dbus)" if sandbox.network else "of /run and /tmp only its folder and command"
    return f"{network}; {files}; {sockets}"


@cache
def _probe_bubblewrap() -> _Bubblewrap | str:
    """Return bubblewrap as it works on this machine, tried once with real namespaces; or the reason why it does not."""
    if sys.platform != "linux":
        return "bubblewrap needs Linux"
    bwrap, true = shutil.which("bwrap"), shutil.which("true")
    if bwrap is None or true is None:
        return "bubblewrap is not installed"
    problem = ""
    for user_namespace in _USER_NAMESPACES:
        options = (*_NAMESPACES, *user_namespace)
        argv = [bwrap, *options, "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--", true]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603 - our own words
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not work here: {error}"
        if done.returncode == 0:
            return _Bubblewrap(bwrap, options)
        said = done.stderr.decode(errors="replace").strip()[:200]
        problem = f"bubblewrap does not work here: {said or f'it exited with code {done.returncode}'}"
    return problem


@cache
def _can_read_disks() -> bool:
    """Return whether this user may read raw disks, and with them every file: as root, or as a member of `disk`."""
    with suppress(OSError), os.scandir("/dev") as entries:
        return any(stat.S_ISBLK(entry.stat().st_mode) and os.access(entry.path, os.R_OK) for entry in entries)
    return False


def _tie_to_parent(argv: Sequence[str]) -> Confined:
    if sys.platform != "linux":
        return Confined(tuple(argv))
    setpriv = _setpriv()
    if setpriv is not None:
        return Confined((setpriv, "--pdeathsig", "KILL", "--", *argv))
    return Confined(tuple(argv), before_exec=die_with_parent())


@cache
def _setpriv() -> str | None:
    """Return the path of a setpriv that supports the parent-death signal: the one of util-linux."""
    path, true = shutil.which("setpriv"), shutil.which("true")
    if path is None or true is None:
        return None
    argv = [path, "--pdeathsig", "KILL", "--", true]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None
