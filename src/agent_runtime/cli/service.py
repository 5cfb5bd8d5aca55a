"""Find the service for a command: the one that it names, the running one, or one in this process."""

import argparse
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_runtime.cli.client import Client
from agent_runtime.config import AuthSettings, Secrets, Settings, load_settings, protect_process
from agent_runtime.domain.errors import AlreadyOwnedError, ConfigurationError
from agent_runtime.processes.tree import keep_orphans
from agent_runtime.storage.owner import Owner, find_storage_owner, own_storage
from agent_runtime.telemetry import configure_logging

_KEY = re.compile(r"[\x21-\x7e]{1,8192}")

_OWNER_S = 15.0
"""Seconds that the owner of the data directory may take to announce its URL or to end."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service to use. `here` is True if it runs in this process, for the duration of this command."""

    client: Client
    here: bool


def settings_of(options: argparse.Namespace) -> tuple[Settings, Secrets]:
    """Load the settings of a command, and configure logging. Raises: ConfigurationError."""
    secrets = Secrets()
    overrides: dict[str, Any] = {
        "server.host": getattr(options, "host", None),
        "server.port": getattr(options, "port", None),
        "tool_registry": _text(options.registry),
        "data_dir": _text(options.data_dir),
        "log.level": options.log_level,
    }
    settings = load_settings(options.config, overrides, secrets=secrets)
    configure_logging(settings.log, secrets.redactor)
    return settings, secrets


def key_of(options: argparse.Namespace) -> str | None:
    """Return the API key for a service, from the file that --key-file names, or from AGENT_RUNTIME_API_KEY.

    Raises: ConfigurationError, whose message does not contain the key.
    """
    file: Path | None = options.key_file
    try:
        key = file.read_text(encoding="utf-8") if file else os.environ.get("AGENT_RUNTIME_API_KEY", "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: the key cannot be read: {error}.") from error
    key = key.strip()
    if not _KEY.fullmatch(key) and (key or file):
        place = file or "AGENT_RUNTIME_API_KEY"
        raise ConfigurationError(f"{place} must hold one API key of at most 8192 bytes, `ar_...`, and nothing else.")
    return key or None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@contextmanager
def connect(options: argparse.Namespace, *, resume: str | None = None) -> Iterator[Service]:
    """Yield a service to use until the command ends.

    A service in this process continues no unfinished task except `resume` and the tasks that this command uses.
    Raises: ConfigurationError, StoreUnavailableError.
    """
    key = key_of(options)
    if options.server:
        yield Service(Client(lambda: str(options.server), key), here=False)
        return
    settings, secrets = settings_of(options)
    give_up_at = time.monotonic() + _OWNER_S
    while True:
        owner = find_storage_owner(settings)
        if owner is not None and owner.url is not None:
            yield Service(Client(lambda: _url_of_owner(settings), key), here=False)
            return
        try:
            lock = own_storage(settings)
            with lock as mine:
                with keep_orphans(), _in_process(settings, secrets, mine, resume) as client:
                    yield Service(client, here=True)
                return
        except AlreadyOwnedError:
            if time.monotonic() > give_up_at:
                raise
        time.sleep(0.1)


def _url_of_owner(settings: Settings) -> str | None:
    owner = find_storage_owner(settings)
    return owner.url if owner else None


@contextmanager
def _in_process(settings: Settings, secrets: Secrets, owner: Owner, resume: str | None) -> Iterator[Client]:
    """Run the service on a loopback port in its own thread; the main thread handles Ctrl-C."""
    import asyncio  # noqa: PLC0415 - takes a second, and a command with a running service does not need it

    import uvloop  # noqa: PLC0415 - likewise

    from agent_runtime.api.server import Server  # noqa: PLC0415 - likewise

    protect_process(settings)
    # Without keys, on loopback and for this command only: its user may read the data directory anyway.
    server_settings = settings.server.model_copy(update={"host": "127.0.0.1", "port": 0})
    settings = settings.model_copy(update={"server": server_settings, "auth": AuthSettings(mode="anonymous")})
    started: Future[str] = Future()
    ended: Future[None] = Future()
    either: tuple[Future[Any], ...] = (started, ended)

    def announce(url: str) -> None:
        owner.announce(url)
        started.set_result(url)

    server = Server(settings, secrets, announce, recover=frozenset({resume} if resume else ()))

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.run())
            ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            ended.set_exception(error)

    thread = threading.Thread(target=serve, name="service", daemon=True)
    thread.start()
    try:
        wait(either, return_when=FIRST_COMPLETED)
        if started.done():
            url = started.result()
            yield Client(lambda: url)
    finally:
        server.stop()
        thread.join()
        ended.result()
