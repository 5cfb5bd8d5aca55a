"""Opaque cursors: where the next page of a list begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from agent_runtime.domain.errors import Fault, InvalidInputError

LAST_POSITION = 2**63 - 1
"""The greatest position."""


def cursor_of(position: int) -> str:
    """Return the cursor of a position, which is at least 1."""
    return urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def position_of(cursor: str, pages: str) -> int:
    """Return the position that a cursor encodes. `pages` names the list in the error message.

    Raises: InvalidInputError if no page of that list returned this cursor.
    """
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = int(text) if text.isdecimal() and len(text) < len(str(LAST_POSITION)) else 0
    except ValueError:
        position = 0
    if position < 1 or cursor_of(position) != cursor:
        raise InvalidInputError(
            [Fault("cursor", f"This is not a cursor of {pages}. Omit it to start from the first page.")]
        )
    return position
