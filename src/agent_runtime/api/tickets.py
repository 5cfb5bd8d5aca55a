"""Stream tickets: `EventSource` cannot send headers, so a short-lived ticket in the URL replaces the key.

A ticket is `EXPIRES.NAME.MAC`. The MAC covers the task and the key that requested it, so a ticket opens one stream and
becomes invalid with its key. Tickets are not stored. The secret of the MAC belongs to the data directory, so tickets
survive a restart of the service.
"""

import re
import time
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest

from agent_runtime.api.keys import ApiKey, KeyRing

_TICKET = re.compile(r"(?P<expires>[0-9]{1,12})\.(?P<name>[A-Za-z0-9._@-]{0,64})\.(?P<mac>[0-9a-f]{64})")


class Tickets:
    """Issues tickets and checks them. A ticket is valid for `valid_s` seconds, for any number of connections."""

    def __init__(self, secret: bytes, valid_s: float) -> None:
        self._secret = secret
        self._valid_s = valid_s

    def issue(self, task_id: str, key: ApiKey | None) -> tuple[str, int]:
        """Return a ticket for the stream of one task, and its expiry in Unix seconds.

        `key` is None in a service without keys, where tickets are not checked.
        """
        expires = int(time.time() + self._valid_s) + 1
        name = key.name if key else ""
        return f"{expires}.{name}.{self._mac(task_id, expires, key)}", expires

    def holder(self, ticket: str, task_id: str, keys: KeyRing) -> ApiKey | None:
        """Return the valid key that requested the ticket; None if the ticket is forged or has expired."""
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
