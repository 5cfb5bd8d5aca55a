"""Protect the secrets of this process from other processes of its user, and from its children."""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from agent_runtime.config.descriptors import restore_descriptor_limit
from agent_runtime.config.secrets import variables_in
from agent_runtime.config.settings import REGISTRY_VARIABLE, Settings
from agent_runtime.text.redaction import names_credential

log = structlog.get_logger(__name__)

_PR_SET_DUMPABLE = 4

_STANDARD = 3
_LAST = 2**32 - 1
_CLOSE_RANGE_CLOEXEC = 4
_SYS_CLOSE_RANGE = 436
"""The number of close_range(2) on every architecture. The flag needs Linux 5.11, the function a new C library."""

_NEEDED = frozenset(
    {"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
    | {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"}
)
"""Variables that this process and its libraries need, and that therefore stay in its environment."""


def protect_process(settings: Settings) -> None:
    """Prevent other processes of the user from reading this one (G12). Call it before starting any process.

    They can no longer trace this process or read its memory, environment and descriptors, except with a capability:
    CAP_SYS_PTRACE, or for some of it CAP_PERFMON or CAP_SYS_ADMIN on recent kernels. In case of those, secrets are
    removed from its environment: every variable named like a credential, and those that `${env:NAME}` in the
    configuration or the registry names. Create `Secrets` first: it keeps their values.

    A service that identifies the processes of its callers cannot identify this one either, so call this only in
    processes that start others.
    """
    _forbid_reading()
    _protected.append(True)
    forget_secrets(settings)


_protected: list[bool] = []
"""Not empty once this process is protected."""


def forget_secrets(settings: Settings) -> None:
    """Take the secrets out of the environment of a protected process, of what its files name now too."""
    if not _protected:
        return
    files = [file for file in (settings.config_file, settings.tool_registry) if file]
    texts = [*map(_text_of, files), settings.tool_registry_yaml or ""]
    referenced = {name for text in texts for name in variables_in(text)} | {REGISTRY_VARIABLE}
    for name in [name for name in os.environ if names_credential(name) or name in referenced]:
        if name.upper() not in _NEEDED:
            _forget(name)


def _forbid_reading() -> None:
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("process_not_protected", reason="prctl(PR_SET_DUMPABLE) was refused; others may read its memory")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # missing, which its reader reports
        return ""


def _forget(name: str) -> None:
    """Remove the variable, and overwrite its original value, which the kernel shows in /proc."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address = libc.getenv(os.fsencode(name))
    if address:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
    os.environ.pop(name, None)


def before_exec() -> Callable[[], None]:
    """Return a function to run in a new process between fork and exec.

    It closes all descriptors except the standard streams, and restores the limit of open files with which this process
    was started. It is needed because uvloop passes on inheritable descriptors: those that this process inherited, and a
    second copy of the pipes. It is safe between fork and exec: it imports and locks nothing.
    """
    if sys.platform != "linux":
        return _close_each
    system_call = ctypes.CDLL(None).syscall
    system_call.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint]

    def close_all() -> None:
        if system_call(_SYS_CLOSE_RANGE, _STANDARD, _LAST, _CLOSE_RANGE_CLOEXEC) != 0:
            _close_each()
        else:
            restore_descriptor_limit()

    return close_all


def _close_each() -> None:
    restore_descriptor_limit()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - fewer objects than a path makes, between fork and exec
        if int(name) >= _STANDARD:
            with suppress(OSError):  # the descriptor of the listing itself
                os.set_inheritable(int(name), False)  # noqa: FBT003 - its shape
