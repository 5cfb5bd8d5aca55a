"""Explanations of missing tools: the reason why a plan cannot use a tool that it names."""

from collections.abc import Mapping

from agent_runtime.domain.errors import Fault
from agent_runtime.domain.tools import Tool, tool_key


def explain_missing_tool(
    server: str, tool: str, place: str, catalogue: Mapping[str, Tool], unusable: Mapping[str, str]
) -> Fault:
    """Return the fault for a tool that is not in the catalogue, with the available alternatives.

    `unusable`: the reason for each listed tool that cannot be used (`server/tool`), and for each server that is not
    connected (`server`).
    """
    if why := unusable.get(tool_key(server, tool)):
        return Fault(f"{place}.tool", f"Tool {tool!r} of server {server!r} cannot be used: {why}.")
    names = sorted(known.name for known in catalogue.values() if known.server == server)
    if names:
        return Fault(f"{place}.tool", f"Server {server!r} has no tool {tool!r}; it has {', '.join(names)}.")
    if why := unusable.get(server):
        return Fault(f"{place}.server", f"Server {server!r} cannot be used now: {why.rstrip('.')}.")
    servers = sorted({known.server for known in catalogue.values()})
    return Fault(
        f"{place}.server",
        f"There is no server {server!r} to be used here; there are {', '.join(servers) or 'none'}.",
    )
