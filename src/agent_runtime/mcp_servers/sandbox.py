"""How a stdio server is confined: a PID namespace where bubblewrap works, the parent-death signal elsewhere (G10)."""

import ctypes
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import Sandbox

_BASE = ("--unshare-pid", "--die-with-parent")
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/alternatives", "/etc/ca-certificates", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki", "/etc/resolv.conf"),
    "/etc/ssl",
)
"""What programs need of the system; all that a server with a `read` list sees beside that list."""

_PROBE_SECONDS = 5
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Confined:
    """A command as it is to be spawned. `before_exec` runs in the child, where no helper program does its work."""

    argv: tuple[str, ...]
    before_exec: Callable[[], None] | None = None


def confine(argv: Sequence[str], sandbox: Sandbox, cwd: Path, base_dir: Path) -> Confined:
    """The command in the strictest confinement that its entry asks for and this machine has.

    `argv[0]` is a path that exists; relative paths of the sandbox are taken from `base_dir`.
    Raises: ConfigurationError where the entry asks for a confinement that is not to be had here.
    """
    if sandbox.mode == "off":
        return _tied_to_parent(argv)
    problem = bubblewrap_problem()
    if problem is None:
        return Confined(("bwrap", *_options(sandbox, cwd, base_dir), "--", *argv))
    if sandbox.mode == "required" or not sandbox.network or sandbox.read or sandbox.write:
        asked = "sandbox.mode: required" if sandbox.mode == "required" else "sandbox.network, read and write"
        raise ConfigurationError(
            f"{asked} can only be kept with bubblewrap, and {problem}. Install bubblewrap and allow user "
            "namespaces, or take the sandbox out of the entry."
        )
    return _tied_to_parent(argv)


def sandbox_level() -> str:
    """What holds on this machine for a server with `sandbox.mode: auto`, for people to read. May take 5 s, once."""
    problem = bubblewrap_problem()
    if problem is None:
        return "pid namespace (bubblewrap)"
    signalled = " and parent-death signal" if sys.platform == "linux" else ""
    return f"process group{signalled} ({problem})"


@cache
def bubblewrap_problem() -> str | None:
    """Why bubblewrap cannot be used on this machine, or None where it works. Tried once, with a real namespace."""
    if sys.platform != "linux":
        return "bubblewrap needs Linux"
    bwrap, true = shutil.which("bwrap"), shutil.which("true")
    if bwrap is None or true is None:
        return "bubblewrap is not installed"
    argv = [bwrap, *_BASE, "--dev-bind", "/", "/", "--proc", "/proc", "--", true]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        return f"bubblewrap does not work here: {said or f'it exited with code {done.returncode}'}"
    return None


def _options(sandbox: Sandbox, cwd: Path, base_dir: Path) -> list[str]:
    options = [*_BASE]
    if not sandbox.network:
        options.append("--unshare-net")
    if not sandbox.read and not sandbox.write:
        options += ["--dev-bind", "/", "/", "--proc", "/proc"]
    else:
        # Only `write`: all can be read, and only those paths written. With `read`: nothing else exists.
        roots = [("--ro-bind-try", path) for path in _SYSTEM] if sandbox.read else [("--ro-bind", "/")]
        for option, path in roots:
            options += [option, path, path]
        options += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - a fresh one, inside
        for option, names in (("--ro-bind", sandbox.read), ("--bind", sandbox.write)):
            for name in names:
                path = str((base_dir / name).absolute())
                options += [option, path, path]
    return [*options, "--chdir", str(cwd)]


def _tied_to_parent(argv: Sequence[str]) -> Confined:
    if sys.platform != "linux":
        return Confined(tuple(argv))
    setpriv = _setpriv()
    if setpriv is not None:
        return Confined((setpriv, "--pdeathsig", "KILL", "--", *argv))
    return Confined(tuple(argv), before_exec=_parent_death_signal())


@cache
def _setpriv() -> str | None:
    """The path of a setpriv that knows the parent-death signal: that of util-linux, and not every other."""
    path, true = shutil.which("setpriv"), shutil.which("true")
    if path is None or true is None:
        return None
    argv = [path, "--pdeathsig", "KILL", "--", true]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


@cache
def _parent_death_signal() -> Callable[[], None]:
    # Loaded beforehand: between fork and exec nothing may be imported, opened or locked.
    prctl = ctypes.CDLL(None).prctl

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return set_signal
