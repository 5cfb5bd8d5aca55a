"""Stream tickets: `EventSource` cannot send headers, so a short-lived ticket in the URL stands in for the key.

A ticket is `EXPIRES.NAME.MAC`. The MAC covers the task and the key that it was asked for with, so it opens one stream
and dies with its key; nothing of it is stored. Its secret is that of the data directory, so that tickets survive a
restart of the service.
"""

import re
import time
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest

from agent_runtime.api.keys import ApiKey, KeyRing

_TICKET = re.compile(r"(?P<expires>[0-9]{1,12})\.(?P<name>[A-Za-z0-9._@-]{0,64})\.(?P<mac>[0-9a-f]{64})")


class Tickets:
    """Makes tickets and checks them. Each is valid for `valid_s`, as often as a browser reconnects."""

    def __init__(self, secret: bytes, valid_s: float) -> None:
        self._secret = secret
        self._valid_s = valid_s

    def issue(self, task_id: str, key: ApiKey | None) -> tuple[str, int]:
        """A ticket for the stream of one task, and the second of Unix time until which it is valid.

        Without a key, where none is asked for, it proves nothing and nobody looks at it.
        """
        expires = int(time.time() + self._valid_s) + 1
        name = key.name if key else ""
        return f"{expires}.{name}.{self._mac(task_id, expires, key)}", expires

    def holder(self, ticket: str, task_id: str, keys: KeyRing) -> ApiKey | None:
        """The valid key that the ticket was asked for with; None where the ticket is not one, or not any more."""
        match = _TICKET.fullmatch(ticket)
        if match is None or int(match["expires"]) < time.time():
            return None
        for key in keys.find_named(match["name"]):
            if compare_digest(self._mac(task_id, int(match["expires"]), key), match["mac"]):
                return key
        return None

    def _mac(self, task_id: str, expires: int, key: ApiKey | None) -> str:
        text = f"stream-ticket\0{task_id}\0{expires}\0{key.digest.hex() if key else ''}"
        return hmac_digest(self._secret, text.encode(), sha256).hex()
