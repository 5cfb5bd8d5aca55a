"""Small pictures for tests."""

import struct
import zlib

from agent_runtime.domain.images import Image, read_image


def make_png(width: int = 8, height: int = 8, color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """Return a PNG file of one color."""
    rows = b"".join(b"\0" + bytes(color) * width for _ in range(height))
    parts = (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(rows)),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_image(number: int = 0, size: int = 0) -> Image:
    """Return one of many images; with `size`, of so many bytes."""
    image = read_image(make_png(color=(number, 0, 0)).ljust(size, b"\0"))
    assert image is not None
    return image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
