"""Find the service for a command: the one that it names, the running one, or one in this process."""

import argparse
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from agent_runtime.cli import output
from agent_runtime.cli.explaining import command_words
from agent_runtime.cli.task_ids import complete_id, list_newest_first
from agent_runtime.client import Client
from agent_runtime.config import Secrets, Settings, load_settings
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.storage.opening import open_for_reading
from agent_runtime.storage.owner import Owner, find_storage_owner, own_storage, storage_exists
from agent_runtime.telemetry import configure_logging

_KEY = re.compile(r"[\x21-\x7e]{1,8192}")

_AWAY_S = 15.0
"""Seconds that a service may take to restart while a task is followed."""

_OWNER_S = 15.0
"""Seconds that the owner of the data directory may take to announce its URL or to end."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service to use. `here` is True if it runs in this process, for the duration of this command."""

    client: Client
    here: bool


def settings_of(
    options: argparse.Namespace, store: str | None = None, registry: str | None = None
) -> tuple[Settings, Secrets]:
    """Load the settings of a command, and configure logging.

    `store`: a `storage.url` that beats all others. `registry`: the text of a registry that does.

    Raises: ConfigurationError.
    """
    secrets = Secrets()
    overrides: dict[str, Any] = {
        "server.host": getattr(options, "host", None),
        "server.port": getattr(options, "port", None),
        "role": getattr(options, "role", None),
        "tool_registry": _text(options.registry),
        "data_dir": _text(options.data_dir) or _find_state_folder(options),
        "log.level": options.log_level,
        "storage.url": store,
        "tool_registry_yaml": registry,
    }
    settings = load_settings(options.config, overrides, secrets=secrets)
    configure_logging(settings.log, secrets.redactor)
    return settings, secrets


_NO_SERVERS = "tool_registry: []"
"""The registry outside a project: only the built-in servers that need no entry."""

_PROJECT_FILES = ("config.yaml", "tool_registry.yaml", "data/agent-runtime.db")
_PROJECT_VARIABLES = ("CONFIG", "TOOL_REGISTRY", "TOOL_REGISTRY_YAML", "DATA_DIR", "STORAGE__URL")


def is_outside_project(options: argparse.Namespace) -> bool:
    """Return True if neither the working directory nor the command nor the environment names a configuration."""
    named = (options.config, options.registry, options.data_dir)
    named += tuple(os.environ.get(f"AGENT_RUNTIME_{name}") for name in _PROJECT_VARIABLES)
    return not any(named) and not any(Path(name).exists() for name in _PROJECT_FILES)


def _find_state_folder(options: argparse.Namespace) -> str | None:
    """Return where the tasks of a user are kept outside a project: in the folder of the XDG specification.

    None inside one, and for `serve`, whose operator names the place.
    """
    if hasattr(options, "host") or not is_outside_project(options):
        return None
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return str(folder / "agent-runtime")


def key_of(options: argparse.Namespace) -> str | None:
    """Return the API key for a service, from the file that --key-file names, or from AGENT_RUNTIME_API_KEY.

    Raises: ConfigurationError, whose message does not contain the key.
    """
    file: Path | None = options.key_file
    try:
        key = file.read_text(encoding="utf-8") if file else os.environ.get("AGENT_RUNTIME_API_KEY", "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{file}: the key cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    key = key.strip()
    if not _KEY.fullmatch(key) and (key or file):
        place = file or "AGENT_RUNTIME_API_KEY"
        raise ConfigurationError(f"{place} must hold one API key of at most 8192 bytes, `ar_...`, and nothing else.")
    return key or None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@contextmanager
def connect(
    options: argparse.Namespace, *, resume: bool = False, creates: bool = False, recovers: bool = False
) -> Iterator[Service]:
    """Yield a service to use until the command ends.

    A service in this process continues no unfinished task except those that this command uses, with `resume` the
    one that it names, and with `recovers` all. Afterwards the options have the whole id of that task. Without
    `creates` no store is created: where there is none, the service has an empty one for the duration of the command.
    Raises: ConfigurationError, StoreUnavailableError, InvalidInputError.
    """
    key = key_of(options)
    if options.server:
        with Client(options.server, key, away_s=_AWAY_S) as client:
            complete_id(options, lambda: list_newest_first(client))
            yield Service(client, here=False)
        return
    registry = None
    if is_outside_project(options):
        registry = _NO_SERVERS
        if creates:
            output.say(f"There is no tool_registry.yaml here. For more tools: {' '.join(command_words())} init")
    settings, secrets = settings_of(options, registry=registry)
    give_up_at = time.monotonic() + _OWNER_S
    while True:
        owner = find_storage_owner(settings)
        if owner is not None and owner.url is not None:
            with _join(options, settings, secrets, key) as client:
                yield Service(client, here=False)
            return
        if owner is None and not creates and not storage_exists(settings):
            with _in_empty_process(options, registry) as client:
                yield Service(client, here=True)
            return
        try:
            lock = own_storage(settings)
            with lock as mine:
                complete_id(options, lambda: _list_stored_ids(settings))
                recover = recovers or frozenset([options.task_id] if resume else [])
                with _host(settings, secrets, mine, recover=recover) as client:
                    yield Service(client, here=True)
                return
        except AlreadyOwnedError:
            if time.monotonic() > give_up_at:
                raise
        time.sleep(0.1)


@contextmanager
def _join(options: argparse.Namespace, settings: Settings, secrets: Secrets, key: str | None) -> Iterator[Client]:
    """Use the service that owns the storage."""
    with ExitStack() as taken_over:
        found = _Found(options, settings, secrets, taken_over)
        with Client(found.find_url, key, away_s=_AWAY_S) as client:
            complete_id(options, lambda: list_newest_first(client))
            yield client


@contextmanager
def _in_empty_process(options: argparse.Namespace, registry: str | None) -> Iterator[Client]:
    """Run the service on an empty store in a temporary folder."""
    with TemporaryDirectory(prefix="agent-runtime-") as name:
        folder = Path(name)
        elsewhere = argparse.Namespace(**{**vars(options), "data_dir": folder})
        settings, secrets = settings_of(elsewhere, f"sqlite:///{folder / 'agent-runtime.db'}", registry)
        complete_id(options, lambda: iter(()))
        with own_storage(settings) as mine, _host(settings, secrets, mine, recover=frozenset()) as client:
            yield client


def _host(
    settings: Settings, secrets: Secrets, owner: Owner, *, recover: bool | frozenset[str]
) -> AbstractContextManager[Client]:
    """Return the context in which the service runs inside this command."""
    from agent_runtime.cli.hosting import host  # noqa: PLC0415 - a command with a running service does not need it

    return host(settings, secrets, owner, recover=recover)


def _list_stored_ids(settings: Settings) -> Iterator[str]:
    """Yield the ids of all tasks in the store, newest first: ids sort by the time at which they were made."""
    with suppress(ConfigurationError), open_for_reading(settings.storage) as store:
        yield from sorted(store.ids(), reverse=True)


class _Found:
    """The service that a command has found, over its restarts.

    If it ran inside another command, and that has ended, it runs inside this one from then on, until `taken_over` is
    closed. It then continues the task of this command, and no other.
    """

    def __init__(
        self, options: argparse.Namespace, settings: Settings, secrets: Secrets, taken_over: ExitStack
    ) -> None:
        self._options = options
        self._settings = settings
        self._secrets = secrets
        self._taken_over = taken_over
        self._was_brief = False

    def find_url(self) -> str | None:
        """Return the URL of the service; None while it is away. Raises: ConfigurationError, StoreUnavailableError."""
        give_up_at = time.monotonic() + _OWNER_S
        while True:
            owner = find_storage_owner(self._settings)
            if owner is None and self._was_brief:
                with suppress(AlreadyOwnedError):  # another command was faster
                    return self._take_over()
            elif owner is None or (owner.url and not (owner.brief and _has_stopped(owner.url))):
                self._was_brief = owner is not None and owner.brief
                return owner.url if owner else None
            if time.monotonic() > give_up_at:
                return None
            time.sleep(0.05)

    def _take_over(self) -> str:
        mine = self._taken_over.enter_context(own_storage(self._settings))
        task_id = getattr(self._options, "task_id", None)
        recover = frozenset([task_id] if task_id else [])
        client = self._taken_over.enter_context(_host(self._settings, self._secrets, mine, recover=recover))
        return str(client.url)


def _has_stopped(url: str) -> bool:
    """Return True if nothing listens at the URL of a command any more: it is about to end."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_OWNER_S).close()
    except OSError:
        return True
    return False
