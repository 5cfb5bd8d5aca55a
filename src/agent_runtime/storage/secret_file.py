"""The secret of a data directory: the key for hashes that only the service can compute, in a file that
only it reads.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

import structlog

from agent_runtime.domain.errors import ConfigurationError

log = structlog.get_logger()

SECRET_FILE = "stream-tickets.secret"  # noqa: S105 - the name of the file, not what is in it
"""Named after its first use, stream tickets."""

_SECRET_BYTES = 32


def read_secret(data_dir: Path) -> bytes:
    """Return the secret of this data directory; a new one if there is none or others could have read it.

    The caller owns the directory. Raises: ConfigurationError where it cannot be written.
    """
    path = data_dir / SECRET_FILE
    if known := find_secret(data_dir):
        return known
    secret = secrets.token_bytes(_SECRET_BYTES)
    try:
        _write(path, secret)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}. See data_dir.") from error
    return secret


def find_secret(data_dir: Path) -> bytes | None:
    """Return the secret of this data directory; None if there is none or others could have read it."""
    path = data_dir / SECRET_FILE
    with contextlib.suppress(OSError):
        status = path.lstat()
        secret = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        if len(secret) == _SECRET_BYTES and not status.st_mode & 0o077:
            return secret
        log.info("secret_replaced", file=str(path))
    return None


def _write(path: Path, secret: bytes) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
