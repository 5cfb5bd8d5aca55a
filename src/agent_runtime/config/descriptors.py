"""The limit of open files of this process, and the connections that fit into it (G9, G11)."""

import resource
from contextlib import suppress

from agent_runtime.config.settings import Settings

_MOST = 65_536
"""More is of no use, and some programs iterate over all possible descriptors."""

_LEAST_RESERVE = 64
_LEAST_CONNECTIONS = 8


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files towards the hard limit, at most to 65,536. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # the system may have a lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)


def fit_connections(settings: Settings, descriptors: int) -> Settings:
    """Return settings whose `connections` leave half of the descriptors, and at least 64, to tasks and servers.

    `stream_clients` leaves a quarter of the connections to requests, so that these are answered even if all streams are
    in use.
    """
    room = max(_LEAST_CONNECTIONS, descriptors - max(_LEAST_RESERVE, descriptors // 2))
    connections = min(settings.limits.connections, room)
    streams = min(settings.limits.stream_clients, connections * 3 // 4 or 1)
    limits = settings.limits.model_copy(update={"connections": connections, "stream_clients": streams})
    return settings.model_copy(update={"limits": limits})
