"""Authentication by API key (`Authorization: Bearer`), and by stream ticket for browsers (G14)."""

import re
from dataclasses import replace
from urllib.parse import parse_qs

import structlog
from starlette.types import Scope

from agent_runtime.api.keys import ApiKey, KeyRing
from agent_runtime.api.problems import Refusal
from agent_runtime.api.tickets import Tickets
from agent_runtime.domain.caller import Caller

log = structlog.get_logger()

MOST_TOKEN_BYTES = 8192
"""The length limit of a bearer token."""

_STREAM = re.compile(r"(?:/v1|/api)?/tasks/(?P<task_id>[A-Za-z0-9_-]{1,100})/stream")
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE)
_HOW = "send a key of this service as `Authorization: Bearer ar_...`"


class KeyAuthenticator:
    """Accepts callers with a valid key. While the service has no key, refusals say how to add one."""

    asks_for_keys = True

    def __init__(self, keys: KeyRing, tickets: Tickets) -> None:
        self._keys = keys
        self._tickets = tickets

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """See `Authenticator.authenticate`."""
        key, via = self._holder(scope)
        if isinstance(key, Refusal):
            refusal = _make_refusal("locked", self._keys.locked) if self._keys.locked else key
            method = scope.get("method", "WEBSOCKET")
            log.info("caller_refused", method=method[:20], path=scope["path"][:200], reason=refusal.code)
            return refusal
        scope["api_key"] = key
        caller = key.caller(via)
        if via == "ticket":  # it was in a URL, and only reads
            return replace(caller, scopes=frozenset({"read"}) if caller.may("read") else frozenset())
        return caller

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:
        """See `Authenticator.issue_ticket`."""
        return self._tickets.issue(task_id, scope.get("api_key"))

    async def close(self) -> None:
        """See `Authenticator.close`. There is nothing to release."""

    def _holder(self, scope: Scope) -> tuple[ApiKey | Refusal, str]:
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if authorization is not None:
            return self._key_of(authorization), "key"
        return self._ticket_holder(scope) or _make_refusal("key_missing", f"This call needs a key: {_HOW}."), "ticket"

    def _key_of(self, authorization: bytes) -> ApiKey | Refusal:
        match = _BEARER.fullmatch(authorization.strip())
        if match is None:
            return _make_refusal("key_invalid", f"The header Authorization is malformed: {_HOW}.")
        if len(match[1]) > MOST_TOKEN_BYTES:
            too_long = f"The token has {len(match[1])} bytes, and the limit is {MOST_TOKEN_BYTES} bytes: {_HOW}."
            return _make_refusal("key_invalid", too_long)
        key = self._keys.find(match[1].decode())
        return key or _make_refusal("key_invalid", f"The key is invalid or revoked: {_HOW}.")

    def _ticket_holder(self, scope: Scope) -> ApiKey | Refusal | None:
        stream = _STREAM.fullmatch(scope["path"]) if scope.get("method", "GET") == "GET" else None
        if stream is None or b"ticket=" not in scope["query_string"]:
            return None
        try:
            given = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=100).get("ticket", [""])
        except ValueError:
            given = [""]
        detail = "The ticket is invalid or has expired: request another one with POST /v1/tasks/ID/stream-ticket."
        return self._tickets.holder(given[0], stream["task_id"], self._keys) or _make_refusal("ticket_invalid", detail)


def _make_refusal(code: str, detail: str) -> Refusal:
    # RFC 6750, section 3.1: no error code if the request has no token.
    error = "" if code in {"key_missing", "locked"} else ', error="invalid_token"'
    return Refusal(401, code, detail, {"WWW-Authenticate": f'Bearer realm="agent-runtime"{error}'})
