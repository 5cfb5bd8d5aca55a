"""Which service a command talks to: the one that is named, the one that runs, or one in this process."""

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
"""How long the owner of the data directory may take to say where it serves, or to be gone."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service to talk to. `here`: it runs in this process, and only for as long as this command does."""

    client: Client
    here: bool


def settings_of(options: argparse.Namespace) -> tuple[Settings, Secrets]:
    """The settings of a command, with logging set up as they say. Raises: ConfigurationError."""
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
    """The API key to show to a service: the file that --key-file names, else AGENT_RUNTIME_API_KEY.

    Raises: ConfigurationError, which does not repeat what was given.
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
    """A service to talk to, until the command ends.

    In this process no unfinished task goes on but the one named by `resume`, and those that are asked for here.
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
    """The real service on a loopback port, in a thread of its own: the main one hears Ctrl-C."""
    import asyncio  # noqa: PLC0415 - these take a second, which a command with an owner need not wait

    import uvloop  # noqa: PLC0415 - likewise

    from agent_runtime.api.server import Server  # noqa: PLC0415 - likewise

    protect_process(settings)
    # On loopback, for as long as the command lasts: whoever may read the data directory needs no key.
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
