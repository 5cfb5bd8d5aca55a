"""Who may call what (G14): API keys by `Authorization: Bearer`, and stream tickets for browsers.

Judged at the edge, from the head of the request alone: nothing of a body is read for a caller who is not let in. An
address that is not listed as open needs a key, whether or not there is anything at it.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

import structlog
from starlette.types import Scope

from agent_runtime.api.keys import ApiKey, KeyRing
from agent_runtime.api.problems import Refusal, missing_scope
from agent_runtime.api.tickets import Tickets
from agent_runtime.config import Settings
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.errors import ConfigurationError

log = structlog.get_logger()

_OPEN = frozenset({"/", "/docs", "/openapi.json", "/health", "/healthz", "/readyz"})
_OPEN_FILES = "/console/"
"""What the pages load; they hold nothing of the service, and ask for a key where one is needed."""

_TASKS = "/v1/tasks"
_REFRESH = "/v1/tools/refresh"
_VERB = re.compile(r"/v1/tasks/[^/]+/(?:calls/[^/]+/)?(?P<verb>[a-z-]+)")
_PLAN = re.compile(r"/v1/tasks/[^/]+/plan")
_STREAM = re.compile(r"/v1/tasks/(?P<task_id>[A-Za-z0-9_-]{1,100})/stream")
_SCOPES_OF: Mapping[str, tuple[str, ...]] = {
    "approve": ("approve",),
    "reject": ("approve",),
    "deny": ("approve",),
    "resolve": ("approve",),
    "revise": ("submit", "approve"),  # what comes of it awaits approval
    "cancel": ("submit", "approve"),  # to stop something is safe for both
    "preview": ("read",),
    "stream-ticket": ("read",),
}

_BEARER = re.compile(rb"bearer +([\x21-\x7e]{1,200})", re.IGNORECASE)
_HOW = "send a key of this service as `Authorization: Bearer ar_...`"


def scopes_for(method: str, path: str) -> tuple[str, ...]:
    """The scopes of which a key needs one for this call; none where no key is needed.

    What is not known here, such as deleting, needs `admin`: whoever adds a call decides who may make it.
    """
    if path in _OPEN or path.startswith(_OPEN_FILES):
        return ()
    if method == "GET":
        return ("read",)
    if method == "POST" and path in {_TASKS, _REFRESH}:  # both start servers
        return ("submit",)
    if method == "PUT" and _PLAN.fullmatch(path):
        return ("submit",)
    match = _VERB.fullmatch(path) if method == "POST" else None
    return _SCOPES_OF.get(match["verb"], ("admin",)) if match else ("admin",)


def anonymous_risks(settings: Settings) -> list[str]:
    """Return what the operator should know about letting everybody in; nothing where keys are asked for."""
    if settings.asks_for_keys:
        return []
    risks = []
    if settings.off_loopback:
        risks.append("auth.mode is anonymous: whoever reaches this service may submit, approve and read everything.")
    if "*" in settings.server.allowed_hosts:
        risks.append(
            "server.allowed_hosts has *, and no keys are asked for: any page that is open in a browser which reaches "
            "this service may submit, approve and read everything, under a name that it makes up (DNS rebinding). "
            "Name the hosts, or ask for keys (auth)."
        )
    return risks


def keys_of(settings: Settings) -> KeyRing | None:
    """Return the keys that callers must show one of; None where everybody is let in.

    A locked service has none yet, and starts: whoever looks for it finds it, and is told what to do.
    Raises: ConfigurationError where a key cannot be read, or where no key can ever come.
    """
    if not settings.asks_for_keys:
        for message in anonymous_risks(settings):
            log.warning("anonymous_access", host=settings.server.host, message=message)
        return None
    keys = KeyRing(settings.auth)
    if keys.locked and settings.auth.mode and not settings.auth.keys_file:
        raise ConfigurationError(
            "auth.mode is keys, and there are no keys: make one with `agent-runtime keys new NAME --scopes admin` and "
            "name the file of its line in auth.keys_file, or let everybody in with auth.mode: anonymous."
        )
    if keys.locked:
        log.warning("locked", host=settings.server.host, message=keys.locked)
    return keys


class Access:
    """Lets in whoever shows a valid key that allows the call. Where there is no key at all, everybody is told why."""

    def __init__(self, keys: KeyRing, tickets: Tickets) -> None:
        self._keys = keys
        self._tickets = tickets

    def judge(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ApiKey | Refusal | None:
        """The key of the caller; None where the call needs none. Only `scope` and `headers` are looked at."""
        method, path = scope["method"], scope["path"]
        needed = scopes_for(method, path)
        if not needed:
            return None
        key = self._caller(scope, headers.get(b"authorization"))
        if isinstance(key, Refusal):
            key = _refused("locked", self._keys.locked) if self._keys.locked else key
            log.info("caller_refused", method=method[:20], path=path[:200], reason=key.code)
            return key
        if key.allows(needed):
            return key
        log.info("caller_refused", method=method[:20], path=path[:200], reason="scope_missing", actor=key.name)
        names = " or ".join(map(repr, needed))
        return Refusal(
            403,
            "scope_missing",
            f"The key {key.name!r} does not have the scope {names}, which this call needs.",
            missing_scope(needed[0]),
        )

    def _caller(self, scope: Scope, authorization: bytes | None) -> ApiKey | Refusal:
        if authorization is None:
            return self._ticket_holder(scope) or _refused("key_missing", f"This call needs a key: {_HOW}.")
        match = _BEARER.fullmatch(authorization.strip())
        if match is None:
            return _refused("key_invalid", f"The header Authorization is not of the form that is needed: {_HOW}.")
        key = self._keys.find(match[1].decode())
        return key or _refused("key_invalid", f"That key is not valid, or not any more: {_HOW}.")

    def _ticket_holder(self, scope: Scope) -> ApiKey | Refusal | None:
        stream = _STREAM.fullmatch(scope["path"]) if scope["method"] == "GET" else None
        if stream is None or b"ticket=" not in scope["query_string"]:
            return None
        try:
            given = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=100).get("ticket", [""])
        except ValueError:
            given = [""]
        detail = f"The ticket is not valid, or not any more: ask for one with POST {_TASKS}/ID/stream-ticket."
        key = self._tickets.holder(given[0], stream["task_id"], self._keys)
        return key or _refused("ticket_invalid", detail)


def _refused(code: str, detail: str) -> Refusal:
    # RFC 6750, section 3.1: no error code where nothing was shown.
    error = "" if code in {"key_missing", "locked"} else ', error="invalid_token"'
    return Refusal(401, code, detail, {"WWW-Authenticate": f'Bearer realm="agent-runtime"{error}'})


def caller_of(scope: Mapping[str, object]) -> Caller:
    """Return who calls, by the key that was shown; where no keys are asked for, anybody with every scope."""
    key = scope.get("api_key")
    return key.caller if isinstance(key, ApiKey) else ANYBODY
