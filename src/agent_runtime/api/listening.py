"""The socket on which the service listens, and its URL."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import structlog

from agent_runtime.config import ServerSettings
from agent_runtime.domain.errors import ConfigurationError

log = structlog.get_logger()


def bind(server: ServerSettings) -> socket.socket:
    """Return the socket to listen on, bound before anything starts. Raises: ConfigurationError."""
    listener = None
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener:
            listener.close()
        raise ConfigurationError(
            f"The service cannot listen on {server.host}:{server.port}: {error.strerror or error}. "
            "Choose another server.host or server.port, or stop whatever uses it."
        ) from error
    return listener


@contextlib.contextmanager
def keep_localhost(listener: socket.socket) -> Iterator[None]:
    """Reserve our port at the other loopback address, so that no other program can listen there.

    `localhost` is both 127.0.0.1 and ::1, and browsers use either. A program at the other address could serve a page
    and stop; the requests of that page would then reach us with our own origin.
    """
    mine, port = listener.getsockname()[:2]
    family, address = (socket.AF_INET6, "::1") if listener.family == socket.AF_INET else (socket.AF_INET, "127.0.0.1")
    with contextlib.ExitStack() as stack:
        try:
            other = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            other.bind((address, port))  # without listen(): clients are refused at once and use our address
        except OSError as error:
            if error.errno == errno.EADDRINUSE and mine != "::":  # `::` covers the IPv4 addresses too
                message = f"Another program uses port {port} of {address}: call this service as {mine}, not localhost."
                log.warning("localhost_shared", message=message)
        yield


_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def url_of(host: str, listener: socket.socket) -> str:
    """Return the URL of a listener on this machine that was bound to `host`."""
    host, port = _LOOPBACK_OF.get(host, host), listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
