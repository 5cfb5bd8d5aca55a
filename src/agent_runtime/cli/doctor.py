"""`agent-runtime doctor`: check this machine and the configuration by trying each part now."""

import argparse
import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Protocol

from agent_runtime.api.auth import anonymous_risks, keys_of
from agent_runtime.bootstrap import make_pool, read_registry, resolve_registry
from agent_runtime.builtin.servers import reach_of
from agent_runtime.cli import output
from agent_runtime.cli.findings import Finding, packages_of
from agent_runtime.cli.model_check import check_model
from agent_runtime.cli.service import settings_of
from agent_runtime.cli.spinner import show_wait
from agent_runtime.client import Client, ClientError
from agent_runtime.config import REGISTRY_VARIABLE, Settings, protect_process
from agent_runtime.domain.errors import (
    AgentRuntimeError,
    AlreadyOwnedError,
    ConfigurationError,
    ServerUnavailableError,
)
from agent_runtime.domain.tools import (
    BuiltinServer,
    HttpServer,
    PythonServer,
    StdioServer,
    Tool,
    ToolDefinition,
    ToolServer,
)
from agent_runtime.judging.process import JudgeProcess
from agent_runtime.mcp_servers.pool import ServerPool
from agent_runtime.mcp_servers.sandbox import describe_level, describe_reach, find_bubblewrap_problem
from agent_runtime.processes.peers import find_peers_problem
from agent_runtime.registry.resolved import ResolvedEntry, ShownValues
from agent_runtime.registry.shared_folders import describe_shared_folders
from agent_runtime.registry.shelf import make_tool
from agent_runtime.registry.verdicts import Verdicts
from agent_runtime.services.ports import ToolServers
from agent_runtime.storage.opening import open_store
from agent_runtime.storage.owner import OwnerInfo, find_storage_owner, own_storage, storage_exists
from agent_runtime.text.escaping import json_line, look_alikes

_OWNER_S = 5.0
"""Seconds that the service that owns the data directory may take to report its readiness."""


class _Tell(Protocol):
    """Tells of findings."""

    def __call__(self, *findings: Finding) -> None: ...


def doctor(options: argparse.Namespace) -> int:
    """Run all checks, print each finding as soon as it is there, and return 1 if a check failed."""
    findings: list[Finding] = []

    def tell(*found: Finding) -> None:
        findings.extend(found)
        if options.json:
            return
        spinner.pause()
        for finding in found:
            output.print_finding(finding.check, finding.state, finding.detail)
        spinner.show()

    with show_wait("Checking", enabled=not options.json) as spinner:
        _look(options, tell)
    if options.json:
        output.document({"findings": [asdict(finding) for finding in findings]})
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _look(options: argparse.Namespace, tell: _Tell) -> None:
    try:
        settings, secrets = settings_of(options)
    except ConfigurationError as error:
        tell(Finding("config", "fail", str(error)))
        return

    def tell_redacted(*findings: Finding) -> None:
        tell(*(replace(finding, detail=secrets.redactor.redact_message(finding.detail)) for finding in findings))

    tell_redacted(Finding("config", "ok", str(settings.config_file or "no config.yaml; defaults and environment")))
    tell_redacted(*(Finding("config", "warn", warning) for warning in settings.config_warnings))
    tell_redacted(_access(settings), *_callers(settings))
    tell_redacted(_store(settings))
    try:
        entries = read_registry(settings)
    except ConfigurationError as error:
        tell_redacted(Finding("registry", "fail", str(error)))
        entries = ()
    else:
        enabled = sum(entry.enabled for entry in entries)
        origin = settings.tool_registry if settings.tool_registry_yaml is None else REGISTRY_VARIABLE
        tell_redacted(Finding("registry", "ok", f"{origin}: {enabled} of {len(entries)} enabled"))
    tell_redacted(*_find_pointless_denials(settings, entries))
    # Any key will do, as no identities are compared.
    loaded = resolve_registry(settings, secrets, entries, ShownValues(b""))
    tell_redacted(*(Finding(f"server {advice.server_id}", "warn", advice.message) for advice in loaded.advice))
    base_dir = settings.tool_registry.parent
    if settings.is_shared and (shared := describe_shared_folders(loaded.resolved, base_dir)):
        tell_redacted(Finding("replicas", "ok", shared))
    protect_process(settings)
    tools = asyncio.run(_servers(make_pool(settings, secrets, loaded), loaded.resolved, base_dir, tell_redacted))
    used = [entry for entry in entries if entry.enabled]
    tell_redacted(*(_reach(entry, base_dir, settings.storage.local_folder) for entry in used))
    tell_redacted(*(finding for entry in used for finding in packages_of(entry)))
    tell_redacted(*(finding for entry in used for finding in _relays(settings, entry)))
    tell_redacted(*asyncio.run(check_model(settings, secrets, tools)))
    tell_redacted(_sandbox())


def _access(settings: Settings) -> Finding:
    try:
        keys = keys_of(settings)
    except ConfigurationError as error:
        return Finding("access", "fail", str(error))
    if keys is not None and keys.locked:
        return Finding("access", "warn", keys.locked)
    if keys is not None:
        return Finding("access", "ok", f"callers must show a key; {len(keys)} are valid")
    risks = anonymous_risks(settings)
    if risks:
        return Finding("access", "warn", " ".join(risks))
    return Finding("access", "ok", "anonymous, on loopback only")


_RELAYS = "a proxy on this machine, a published port or a container hides the caller: use keys with them"


def _callers(settings: Settings) -> Iterator[Finding]:
    """Check that a service without keys can recognise callers that it has started."""
    if settings.asks_for_keys:
        return
    problem = find_peers_problem()
    if problem:
        detail = f"processes that the service starts cannot be told from other callers, and {problem}: use keys"
        yield Finding("callers", "warn", detail)
    else:
        yield Finding("callers", "ok", f"processes that the service starts are refused; {_RELAYS}")


_CONTAINER_COMMANDS = frozenset({"docker", "nerdctl", "podman"})


def _relays(settings: Settings, entry: ToolServer) -> Iterator[Finding]:
    """Warn of an entry whose processes could call the service without being recognised as started by it."""
    if settings.asks_for_keys or not isinstance(entry, StdioServer):
        return
    name = PurePath(entry.config.command).name
    if name in _CONTAINER_COMMANDS:
        detail = f"{name} has another process start it, so it may call the service without being recognised: use keys"
        yield Finding(f"callers of {entry.id}", "warn", detail)


def _store(settings: Settings) -> Finding:
    """Check that the journal can be written: ask the owner of the data directory, or write if there is none."""
    try:
        owner = find_storage_owner(settings)
        if owner is not None:
            return _of_owner(owner)
        if not storage_exists(settings):
            return _check_place(settings)
        with own_storage(settings):
            asyncio.run(_write(settings))
    except AlreadyOwnedError as error:  # it started just now
        return Finding("store", "ok", str(error))
    except AgentRuntimeError as error:
        return Finding("store", "fail", str(error))
    return Finding("store", "ok", f"{settings.storage.shown} can be written; no service runs")


def _check_place(settings: Settings) -> Finding:
    """Check that a store can be created where the settings say, and create nothing."""
    place = settings.storage.database_path.absolute()
    folder = next(parent for parent in place.parents if parent.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return Finding("store", "ok", f"{settings.storage.shown} does not exist yet; the first task creates it")
    return Finding("store", "fail", f"{settings.storage.shown} cannot be created: {folder} cannot be written")


def _of_owner(owner: OwnerInfo) -> Finding:
    url = owner.url
    if url is None:
        return Finding("store", "warn", f"process {owner.pid} owns the data directory, and does not serve (yet)")
    try:
        with Client(url) as client:
            client.check_ready(_OWNER_S)
    except ClientError as error:
        return Finding("store", "fail", f"process {owner.pid} serves at {url}. {error}")
    return Finding("store", "ok", f"process {owner.pid} serves at {url} and is ready")


async def _write(settings: Settings) -> None:
    async with open_store(settings.storage) as store:
        await store.check()


@dataclass(frozen=True, slots=True)
class _Seen:
    """The findings about servers, and the tools that can be used."""

    findings: Sequence[Finding]
    tools: Sequence[Tool] = ()


async def _servers(servers: ServerPool, entries: Sequence[ResolvedEntry], base_dir: Path, tell: _Tell) -> list[Tool]:
    """Query the tools of all enabled servers, concurrently, and tell of each as it has answered.

    Return the tools in the order of the entries.
    """
    judge = JudgeProcess()

    async def look(entry: ResolvedEntry) -> Sequence[Tool]:
        seen = await _server(pool, Verdicts(judge.judge), entry, base_dir)
        tell(*seen.findings)
        return seen.tools

    async with servers as pool:
        found = await asyncio.gather(*map(look, entries))
    return [tool for tools in found for tool in tools]


async def _server(pool: ToolServers, verdicts: Verdicts, resolved: ResolvedEntry, base_dir: Path) -> _Seen:
    entry = resolved.server
    check = f"server {entry.id}"
    if not entry.enabled:
        return _Seen([Finding(check, "ok", "disabled in the tool registry")])
    if resolved.problem is not None:
        return _Seen([Finding(check, "fail", resolved.problem)])
    if isinstance(entry, BuiltinServer) and entry.config.root and not (base_dir / entry.config.root).is_dir():
        detail = f"its root {base_dir / entry.config.root} is not a folder: create it, or change config.root"
        return _Seen([Finding(check, "fail", detail)])
    try:
        offer = await pool.discover(entry)
        judged = await verdicts.judge(offer.definitions)
    except ServerUnavailableError as error:
        return _Seen([Finding(check, "fail", error.reason)])
    except Exception as error:  # noqa: BLE001 - a doctor does not die of what it finds
        return _Seen([Finding(check, "fail", f"internal error, please report it: {error!r}")])
    faults = {one.definition.name: one.fault for one in judged if one.fault}
    usable = len(offer) - len(faults)
    count = "1 tool" if usable == 1 else f"{usable} tools"
    unusable = [
        Finding(check, "warn", f"its tool {json_line(name)} cannot be used: {why}")
        for name, why in {**offer.left_out, **faults}.items()
    ]
    findings = [
        Finding(check, "ok", f"{entry.type}, {count}"),
        *unusable,
        *_find_unmatched(check, entry, offer.definitions),
    ]
    tools = (make_tool(resolved, one) for one in judged)
    return _Seen(findings, [tool for tool in tools if isinstance(tool, Tool)])


def _find_unmatched(check: str, entry: ToolServer, definitions: Sequence[ToolDefinition]) -> Iterator[Finding]:
    """Warn of rules for tools that the server does not have, which protect nothing, and of tools that look alike."""
    names = [definition.name for definition in definitions]
    for alike in look_alikes(names):
        shown = " and ".join(map(json_line, alike))
        yield Finding(check, "warn", f"its tools {shown} differ only in invisible characters")
    for pattern in entry.tools:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            detail = f"{pattern!r} under its tools matches none of them, so that rule has no effect"
            yield Finding(check, "warn", detail)
    for index, denial in enumerate(entry.deny):
        mine = [definition for definition in definitions if fnmatchcase(definition.name, denial.tool)]
        unknown = [path for path in denial.arguments if not any(_takes(definition, path) for definition in mine)]
        if not mine:
            detail = f"deny[{index}]: {denial.tool!r} matches none of its tools, so it denies nothing"
            yield Finding(check, "warn", detail)
        elif unknown:
            detail = f"deny[{index}]: none of the tools that it matches is known to take {', '.join(unknown)}"
            yield Finding(check, "warn", f"{detail}, so it may deny nothing")


def _takes(definition: ToolDefinition, path: str) -> bool:
    """Return True if a path may name an argument, according to the schema of the tool."""
    properties = definition.arguments_schema.get("properties")
    if not isinstance(properties, Mapping) or path.startswith("*"):
        return True
    return any(f"{path}.".startswith(f"{name}.") for name in properties)


def _find_pointless_denials(settings: Settings, entries: Sequence[ToolServer]) -> Iterator[Finding]:
    """Warn of denials in the settings for servers that do not exist."""
    for index, denial in enumerate(settings.approval.deny):
        if not any(fnmatchcase(entry.id, denial.server) for entry in entries):
            detail = f"approval.deny[{index}]: {denial.server!r} matches no server, so it denies nothing"
            yield Finding("config", "warn", detail)


def _reach(entry: ToolServer, base_dir: Path, data_dir: Path | None) -> Finding:
    """Describe the reach of a server on this machine, as it would be started now."""
    match entry:
        case StdioServer():
            reach = describe_reach(entry.sandbox)
        case HttpServer():
            reach = "nothing on this machine: it runs elsewhere, and receives the calls that are made to it"
        case BuiltinServer(config=config):
            reach = reach_of(config, base_dir, data_dir)
        case PythonServer():
            reach = "all that the service itself can: its code runs in the process of the service, and is not confined"
    return Finding(f"reach of {entry.id}", "ok", reach)


def _sandbox() -> Finding:
    return Finding("sandbox", "warn" if find_bubblewrap_problem() else "ok", describe_level())
