"""Clients of the service's WebSockets: a real one, and raw frames that no real one would send."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_client
from websockets.sync.connection import Connection

from serving import PATIENCE_S, Service, connect

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n{more}\r\n"
)
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@contextmanager
def open_socket(service: Service, path: str, **more: Any) -> Iterator[Connection]:
    """Open a WebSocket on a path of the service, or on the stream of a task."""
    path = path if path.startswith("/") else f"/v1/tasks/{path}/stream"
    url = f"ws{service.url.removeprefix('http')}{path}"
    with connect_client(url, open_timeout=PATIENCE_S, close_timeout=0.1, **more) as connection:
        yield connection


def next_message(connection: Connection) -> Any:
    return json.loads(connection.recv(PATIENCE_S))


def messages_until(connection: Connection, event: str) -> list[Any]:
    """Return the messages up to the first with this event."""
    found = [next_message(connection)]
    while found[-1]["event"] != event:
        found.append(next_message(connection))
    return found


def messages_of(connection: Connection) -> tuple[list[Any], int, str]:
    """Return all messages up to the close of the connection, and the code and reason of that."""
    found: list[Any] = []
    try:
        while True:
            found.append(next_message(connection))
    except ConnectionClosed as closed:
        end = closed.rcvd
    assert end is not None
    return found, end.code, end.reason


def send(connection: Connection, **message: Any) -> None:
    connection.send(json.dumps(message))


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """Return a frame as a client sends it, or as it must not."""
    first = (0x80 if fin else 0) | (reserved << 4) | opcode
    mask = os.urandom(4) if masked else b""
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head = struct.pack("!BB", first, bit | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(data))
    hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) if masked else data
    return head + mask + hidden


def exchange_frames(
    service: Service, path: str, sent: bytes, until: int = CLOSE
) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Open a WebSocket by hand, and send bytes once it is open.

    Return the answer to the handshake, and all frames until one has the opcode `until`.
    """
    with connect(service) as connection:
        connection.sendall(HANDSHAKE.format(path=path, more="").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        head, _, rest = head.partition(b"\r\n\r\n")
        connection.sendall(sent)
        while until not in [opcode for opcode, _ in read_frames(rest)] and (data := connection.recv(65536)):
            rest += data
    return head, list(read_frames(rest))


def read_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the opcode and the content of the frames that the service sent."""
    while len(data) >= 2:
        opcode, size, start = data[0] & 0x0F, data[1], 2
        if size == 126:
            size, start = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, start = struct.unpack("!Q", data[2:10])[0], 10
        yield opcode, data[start : start + size]
        data = data[start + size :]


def close_of(frames: list[tuple[int, bytes]]) -> tuple[int, str]:
    """Return the code and reason of the close frame, which is the last one."""
    opcode, content = frames[-1]
    assert opcode == CLOSE, frames[-1]
    return struct.unpack("!H", content[:2])[0], content[2:].decode()
