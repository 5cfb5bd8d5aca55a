"""API keys: create, store and look them up. Only the SHA-256 of a key is stored.

Each key is one line, `NAME sha256:HEX SCOPE [SCOPE ...]`; a `#` begins a comment. A key has at least 160 random bits,
which nobody can guess, so a fast hash without salt is enough.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

import structlog

from agent_runtime.config import AuthSettings
from agent_runtime.domain.caller import SCOPES, Caller
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.events import ANONYMOUS, POLICY
from agent_runtime.domain.signature import DEFAULT_TENANT

log = structlog.get_logger()

_NOT_CONFIGURED = (
    "This service is locked: other machines can reach it, and authentication is not configured. Set auth.mode "
    "(AGENT_RUNTIME_AUTH__MODE) to anonymous, which accepts everybody, or to keys, with the keys in auth.keys_file."
)
_NO_KEY_YET = (
    "This service is locked: the file that auth.keys_file (AGENT_RUNTIME_AUTH__KEYS_FILE) names contains no valid key. "
    "Add the line that `agent-runtime keys new NAME --scopes admin` prints; it is valid from the next request on."
)
_PREFIX = "ar_"
_RANDOM_BYTES = 24
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)
_RESERVED = frozenset({ANONYMOUS, POLICY})
"""Actors in the journal that are not persons."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its holder and scopes. `name` is the actor in the journal."""

    name: str
    digest: bytes
    scopes: frozenset[str]

    def caller(self, via: str = "key") -> Caller:
        """Return the caller that uses this key; `via` is `key` or `ticket`."""
        return Caller(self.name, DEFAULT_TENANT, self.scopes, via)

    @property
    def line(self) -> str:
        """The line for the file of keys."""
        return " ".join([self.name, f"sha256:{self.digest.hex()}", *(name for name in SCOPES if name in self.scopes)])


def new_key(name: str, scopes: Iterable[str]) -> tuple[str, ApiKey]:
    """Create a key; return its secret text and the value to store. Raises: ConfigurationError."""
    text = _PREFIX + secrets.token_hex(_RANDOM_BYTES)
    key = ApiKey(name, _digest(text), frozenset(scopes))
    fault = _fault(key)
    if fault:
        raise ConfigurationError(fault)
    return text, key


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def _fault(key: ApiKey) -> str | None:
    if not _NAME.fullmatch(key.name):
        return "A key's name is 1 to 64 letters, digits and . _ @ -, the first a letter or digit."
    if key.name in _RESERVED:
        return f"{key.name!r} is reserved in the journal; choose another name."
    unknown = sorted(key.scopes - set(SCOPES))
    if unknown or not key.scopes:
        said = f"There is no scope {unknown[0]!r}" if unknown else "A key needs a scope"
        return f"{said}; there are {', '.join(SCOPES)}."
    return None


def parse_keys(text: str) -> tuple[list[ApiKey], list[str]]:
    """Return the keys of a text, and the faults of its other lines. Faults do not quote lines, which may be keys."""
    keys: dict[bytes, ApiKey] = {}
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key = _parse_line(words)
        if isinstance(key, ApiKey) and key.digest in keys:
            key = "An earlier line has the same key."
        if isinstance(key, ApiKey):
            keys[key.digest] = key
        else:
            faults.append(f"line {number}: {key}")
    return list(keys.values()), faults


def _parse_line(words: list[str]) -> ApiKey | str:
    if any(word.startswith(_PREFIX) for word in words):
        return "This may be a key itself: store the line that `agent-runtime keys new` printed below it."
    hashed = _HASH.fullmatch(words[1]) if len(words) > 1 else None
    if hashed is None:
        return "Expected NAME sha256:HEX SCOPE ..., as `agent-runtime keys new` prints it."
    key = ApiKey(words[0], bytes.fromhex(hashed[1]), frozenset(words[2:]))
    return _fault(key) or key


class KeyRing:
    """The valid keys. A new or changed file is read again at the next request.

    After a change, invalid lines are logged and ignored. If the file is gone, none of its keys is valid.
    """

    def __init__(self, settings: AuthSettings) -> None:
        """Read all keys. Raises: ConfigurationError with every invalid line."""
        self._file = settings.keys_file
        self._fixed, faults = parse_keys("\n".join(settings.keys))
        faults = [f"auth.keys: {fault}" for fault in faults]
        self._seen = self._state()
        self._keys = self._read(faults)
        if faults:
            raise ConfigurationError("\n".join(faults))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def locked(self) -> str | None:
        """The reason why no caller can be accepted, with the remedy; None if there is a valid key."""
        if self._current():
            return None
        return _NO_KEY_YET if self._file else _NOT_CONFIGURED

    def find(self, presented: str) -> ApiKey | None:
        """Return the valid key with this text, or None. Compares every key in constant time."""
        digest = _digest(presented)
        found = None
        for key in self._current():
            if compare_digest(key.digest, digest):
                found = key
        return found

    def find_named(self, name: str) -> Iterator[ApiKey]:
        """Yield the valid keys of this name: two while one replaces the other."""
        return (key for key in self._current() if key.name == name)

    def _current(self) -> tuple[ApiKey, ...]:
        if self._file is not None:
            state = self._state()
            if state != self._seen:
                self._seen = state
                faults: list[str] = []
                self._keys = self._read(faults)
                log.info("keys_read", file=str(self._file), count=len(self._keys))
                for fault in faults:
                    log.error("keys_unusable", fault=fault)
        return self._keys

    def _state(self) -> tuple[int, ...] | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size

    def _read(self, faults: list[str]) -> tuple[ApiKey, ...]:
        if self._file is None:
            return tuple(self._fixed)
        keys, found = parse_keys(_text(self._file, faults))
        faults += [f"{self._file}: {fault}" for fault in found]
        return (*self._fixed, *keys)


def _text(file: Path, faults: list[str]) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""  # it may be mounted later, as secrets are
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        faults.append(f"{file}: cannot be read: {reason}. auth.keys_file must name a file of keys.")
        return ""
