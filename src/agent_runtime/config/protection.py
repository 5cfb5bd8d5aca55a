"""Protect the secrets of this process from other processes of its user, and from its children."""

import ctypes
import os
import sys
from pathlib import Path

import structlog

from agent_runtime.config.secrets import variables_in
from agent_runtime.config.settings import REGISTRY_VARIABLE, Settings
from agent_runtime.text.redaction import names_credential

log = structlog.get_logger(__name__)

_PR_SET_DUMPABLE = 4

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
