"""Keys, scopes and tickets, without a server."""

import stat
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import ValidationError

from agent_runtime.api import app as api
from agent_runtime.api.auth import anonymous_risks, keys_of
from agent_runtime.api.key_holders import MOST_TOKEN_BYTES, KeyAuthenticator
from agent_runtime.api.keys import ApiKey, KeyRing, new_key, parse_keys
from agent_runtime.api.late_doors import flatten
from agent_runtime.api.problems import Refusal
from agent_runtime.api.scopes import RouteScopes, requires
from agent_runtime.api.tickets import Tickets
from agent_runtime.config import AuthSettings, Secrets, ServerSettings, Settings, load_settings
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.storage.secret_file import SECRET_FILE, read_secret

HASH = "sha256:" + "ab" * 32


def test_a_key_has_160_random_bits_and_only_its_hash_is_in_its_line() -> None:
    text, key = new_key("cellery", ["submit", "read"])
    assert text.startswith("ar_")
    assert len(bytes.fromhex(text[3:])) * 8 >= 160
    assert text not in key.line
    assert text[3:] not in key.line
    assert parse_keys(key.line) == ([key], [])
    assert new_key("cellery", ["read"])[0] != text


@pytest.mark.parametrize("name", ["", "two words", "-x", "anonymous", "policy", "x" * 65, "a#b", "é", "a\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        new_key(name, ["read"])


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "Admin"]])
def test_a_key_needs_known_scopes(scopes: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="submit, approve, read, admin"):
        new_key("x", scopes)


def test_lines_have_comments_and_the_wrong_ones_are_named_by_number_and_not_repeated() -> None:
    text = (
        f"# keys\n\none {HASH} read # the first\nar_secret\ntwo {HASH} read\nthree sha256:12 read\nfour {HASH[:-1]}0\n"
    )
    keys, faults = parse_keys(text)
    assert [(key.name, key.scopes) for key in keys] == [("one", frozenset({"read"}))]
    assert [fault.partition(":")[0] for fault in faults] == ["line 4", "line 5", "line 6", "line 7"]
    assert not any("secret" in fault for fault in faults)


@pytest.mark.parametrize(
    ("call", "scopes"),
    [
        ("GET /", ()),
        ("GET /docs", ()),
        ("GET /console/main.js", ()),
        ("GET /healthz", ()),
        ("GET /readyz", ()),
        ("GET /openapi.json", ()),
        ("GET /health", ()),
        ("GET /v1/me", ("submit", "approve", "read", "admin")),
        ("GET /v1/status", ("read",)),
        ("GET /api/v1/health", ()),
        ("GET /api/v1/runs/r", ("read",)),
        ("GET /api/v1/runs", ("read",)),
        ("POST /api/v1/runs", ("submit",)),
        ("DELETE /api/v1/runs/r", ("admin",)),
        ("GET /metrics", ("read",)),
        ("GET /docs/", ("read",)),
        ("GET /v1/tasks", ("read",)),
        ("GET /v1/tasks/t/stream", ("read",)),
        ("POST /v1/tasks/t/stream-ticket", ("read",)),
        ("POST /v1/tasks", ("submit",)),
        ("POST /v1/tasks/", ("admin",)),
        ("POST /v1/tasks/t/approve", ("approve",)),
        ("POST /v1/tasks/t/reject", ("approve",)),
        ("POST /v1/tasks/t/resolve", ("approve",)),
        ("POST /v1/tasks/t/cancel", ("submit", "approve")),
        ("DELETE /v1/tasks/t", ("admin",)),
        ("PUT /v1/tasks/t/plan", ("submit",)),
        ("POST /v1/tasks/t/calls/c/approve", ("approve",)),
        ("POST /v1/tasks/t/calls/c/deny", ("approve",)),
        ("PUT /v1/tasks/t", ("admin",)),
        ("POST /v1/tasks/t/revise", ("submit", "approve")),
        ("POST /v1/tasks/t/preview", ("read",)),
        ("PUT /v1/tasks/t/approve", ("admin",)),
        ("POST /v1/tasks/t/approve/x", ("admin",)),
    ],
)
def test_every_call_needs_its_scope_and_an_unknown_one_needs_admin(call: str, scopes: tuple[str, ...]) -> None:
    method, path = call.split()
    routes = RouteScopes(route for router in api.ROUTERS for route in router.routes)
    assert routes.needed_scopes({"type": "http", "method": method, "path": path}) == scopes


def test_every_route_says_its_scope() -> None:
    routes = [route for router in api.ROUTERS for route in router.routes]
    assert routes
    assert [route for route in routes if not hasattr(getattr(route, "endpoint", None), "required_scopes")] == []


def test_there_are_no_routes_but_those_of_the_routers(tmp_path: Path) -> None:
    app = api.create_app(Settings(data_dir=tmp_path), Secrets())
    assert flatten(app.routes) == [route for router in api.ROUTERS for route in router.routes]


def test_a_route_that_forgets_to_say_its_scope_needs_admin() -> None:
    async def declared_scope() -> None: ...

    async def forgot() -> None: ...

    router = APIRouter()
    router.add_api_route("/said", requires("read")(declared_scope), methods=["POST"])
    router.add_api_route("/forgot", forgot, methods=["GET"])
    routes = RouteScopes(router.routes)
    assert routes.needed_scopes({"type": "http", "method": "POST", "path": "/said"}) == ("read",)
    assert routes.needed_scopes({"type": "http", "method": "GET", "path": "/forgot"}) == ("admin",)


def test_no_call_of_the_api_was_forgotten(tmp_path: Path) -> None:
    _, key = new_key("x", ["admin"])
    settings = Settings(data_dir=tmp_path, auth=AuthSettings(keys=(key.line,)))
    paths: dict[str, dict[str, Any]] = api.create_app(settings, Secrets()).openapi()["paths"]
    admin = [
        f"{method} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation.get("security") == [{"key": ["admin"]}]
    ]
    assert admin == ["delete /v1/tasks/{task_id}", "post /v1/tools/reload"]
    assert [path for path, operations in paths.items() if "security" not in operations.get("get", {"security": 1})] == [
        "/api/v1/health",
        "/healthz",
        "/health",
        "/readyz",
    ]


def test_admin_is_every_scope() -> None:
    _, key = new_key("x", ["admin"])
    assert key.caller().may("approve")
    assert not ApiKey("y", b"", frozenset({"read"})).caller().may("submit", "approve")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_changed_file_counts_at_once(file: Path) -> None:
    (one, first), (two, second) = new_key("one", ["read"]), new_key("two", ["read"])
    file.write_text(first.line)
    ring = KeyRing(AuthSettings(keys_file=file))
    assert ring.find(one) == first
    assert ring.find(two) is None
    file.write_text(f"{second.line}\n")
    assert ring.find(one) is None
    assert ring.find(two) == second


def test_of_a_file_that_was_broken_the_good_lines_count_and_of_one_that_is_gone_none(file: Path) -> None:
    one, first = new_key("one", ["read"])
    file.write_text(first.line)
    ring = KeyRing(AuthSettings(keys_file=file))
    file.write_text(f"nonsense\n{first.line}\n")
    assert ring.find(one) == first
    file.unlink()
    assert ring.find(one) is None
    file.write_bytes(b"\xff\xfe\x00")
    assert ring.find(one) is None
    file.write_text(first.line)
    assert ring.find(one) == first


def test_keys_come_from_the_file_and_from_the_settings(file: Path) -> None:
    (one, first), (two, second) = new_key("one", ["read"]), new_key("two", ["read"])
    file.write_text(first.line)
    ring = KeyRing(AuthSettings(keys_file=file, keys=(second.line,)))
    assert (ring.find(one), ring.find(two), len(ring)) == (first, second, 2)


def test_where_keys_come_from_is_a_setting_of_the_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (one, first), (two, second) = new_key("one", ["read", "submit"]), new_key("two", ["read"])
    (tmp_path / "config.yaml").write_text(f"auth: {{keys_file: secrets/keys, keys: [{first.line}]}}")
    assert load_settings(environ={}).auth.keys_file == tmp_path / "secrets" / "keys"
    environ = {"AGENT_RUNTIME_AUTH__KEYS": f"{first.line}, {second.line}", "AGENT_RUNTIME_API_KEY": one}
    settings = load_settings(overrides={"auth.keys_file": None}, environ=environ)
    assert settings.auth.keys == (first.line, second.line)
    assert settings.config_warnings == ()
    ring = KeyRing(settings.auth.model_copy(update={"keys_file": None}))
    assert (ring.find(one), ring.find(two)) == (first, second)


@pytest.mark.parametrize("origin", ["*", "null", "cellery.test", "https://*.test", "https://cellery.test/page", ""])
def test_what_is_no_single_origin_cannot_be_allowed(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"https://cellery\.example"):
        ServerSettings(allowed_origins=(origin,))


def test_at_the_start_every_wrong_line_is_named(file: Path) -> None:
    file.write_text("nonsense\n")
    with pytest.raises(ConfigurationError) as caught:
        KeyRing(AuthSettings(keys_file=file, keys=("nonsense",)))
    assert f"{file}: line 1" in str(caught.value)
    assert "auth.keys: line 1" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"cannot be read: Is a directory"):
        KeyRing(AuthSettings(keys_file=file.parent))


def test_a_file_of_keys_may_still_come(file: Path) -> None:
    ring = KeyRing(AuthSettings(keys_file=file))
    assert "auth.keys_file" in str(ring.locked)
    text, key = new_key("x", ["read"])
    file.write_text(key.line)
    assert ring.find(text) == key
    assert str(ring.locked) == "None"


def make_settings(host: str, **auth: Any) -> Settings:
    return Settings.model_validate({"server": {"host": host}, "auth": auth})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_on_loopback_everybody_is_let_in(host: str) -> None:
    assert keys_of(make_settings(host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "runtime.example"])  # noqa: S104 - nothing is bound
def test_off_loopback_there_must_be_keys_or_an_explicit_word(host: str) -> None:
    keys = keys_of(make_settings(host))
    assert keys is not None
    assert "auth.mode" in str(keys.locked)
    assert keys_of(make_settings(host, mode="anonymous")) is None
    assert keys_of(make_settings(host, keys=[new_key("x", ["read"])[1].line])) is not None


def test_where_there_are_keys_they_are_asked_for_on_loopback_too() -> None:
    line = new_key("x", ["read"])[1].line
    assert keys_of(make_settings("127.0.0.1", keys=[line])) is not None
    assert keys_of(make_settings("127.0.0.1", keys=[line], mode="anonymous")) is None
    with pytest.raises(ConfigurationError, match=r"auth\.mode is keys, and there are no keys"):
        keys_of(make_settings("127.0.0.1", mode="keys"))


def test_the_operator_is_warned_of_what_anonymous_access_lets_in() -> None:
    def risks(host: str, names: list[str], **auth: Any) -> list[str]:
        return anonymous_risks(
            Settings.model_validate({"server": {"host": host, "allowed_hosts": names}, "auth": auth})
        )

    line = new_key("x", ["read"])[1].line
    assert risks("127.0.0.1", ["localhost"]) == []
    assert risks("127.0.0.1", ["*"], keys=[line]) == []
    (any_name,) = risks("127.0.0.1", ["localhost", "*"])
    assert "server.allowed_hosts" in any_name
    assert "DNS rebinding" in any_name
    (any_machine,) = risks("10.0.0.1", ["runtime.example"], mode="anonymous")
    assert risks("10.0.0.1", ["*"], mode="anonymous") == [any_machine, any_name]
    assert risks("10.0.0.1", ["*"]) == []  # it is locked


def ring_of(*keys: ApiKey) -> KeyRing:
    return KeyRing(AuthSettings(keys=tuple(key.line for key in keys)))


def test_a_ticket_opens_one_task_for_its_time_and_dies_with_its_key() -> None:
    (_, one), (_, again), (_, two) = (new_key(name, ["read"]) for name in ("one", "one", "two"))
    tickets = Tickets(b"secret", 60)
    ticket, expires = tickets.issue("task_1", one)
    assert 60 <= expires - time.time() <= 62
    assert tickets.holder(ticket, "task_1", ring_of(two, again, one)) == one
    assert tickets.holder(ticket, "task_2", ring_of(one)) is None
    assert tickets.holder(ticket, "task_1", ring_of(two)) is None
    assert tickets.holder(ticket, "task_1", ring_of(again)) is None
    assert Tickets(b"other", 60).holder(ticket, "task_1", ring_of(one)) is None
    late, _ = Tickets(b"secret", -10).issue("task_1", one)
    assert tickets.holder(late, "task_1", ring_of(one)) is None
    later = f"{expires + 1}{ticket[ticket.index('.') :]}"
    assert tickets.holder(later, "task_1", ring_of(one)) is None


@pytest.mark.parametrize(
    "ticket", ["", "x", "1.2.3", "9" * 40, "9999999999..", "9999999999.one." + "0" * 64, "\u0663."]
)
def test_what_is_no_ticket_opens_nothing(ticket: str) -> None:
    assert Tickets(b"secret", 60).holder(ticket, "t", ring_of(new_key("one", ["read"])[1])) is None


def test_a_ticket_made_without_a_key_opens_nothing_where_keys_are_asked_for() -> None:
    tickets = Tickets(b"secret", 60)
    ticket, _ = tickets.issue("t", None)
    assert tickets.holder(ticket, "t", ring_of(new_key("one", ["read"])[1])) is None


def test_the_secret_of_tickets_stays_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = read_secret(folder)
    file = folder / SECRET_FILE
    assert read_secret(folder) == secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(folder.iterdir()) == [file]
    file.chmod(0o644)
    replaced = read_secret(folder)
    assert replaced != secret
    file.write_bytes(b"short")
    assert len(read_secret(folder)) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def authenticate(
    authorization: str | None, path: str = "/v1/tasks", query: str = "", *, key: ApiKey
) -> Caller | Refusal:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    scope = {"method": "GET", "path": path, "query_string": query.encode("latin-1"), "headers": headers}
    return await KeyAuthenticator(ring_of(key), Tickets(b"secret", 60)).authenticate(scope)


async def test_the_scheme_is_read_whatever_its_case() -> None:
    text, key = new_key("x", ["read"])
    for authorization in (f"Bearer {text}", f"bearer  {text} ", f"BEARER {text}"):
        assert await authenticate(authorization, key=key) == Caller("x", "default", frozenset({"read"}), "key")


async def test_a_caller_with_a_ticket_is_the_holder_of_its_key() -> None:
    _, key = new_key("x", ["read"])
    ticket, _ = Tickets(b"secret", 60).issue("t", key)
    caller = await authenticate(None, "/v1/tasks/t/stream", f"ticket={ticket}", key=key)
    assert caller == Caller("x", "default", frozenset({"read"}), "ticket")


async def test_a_token_may_have_8_kib_and_a_longer_one_is_told_so() -> None:
    _, other = new_key("x", ["read"])
    text = "t" * MOST_TOKEN_BYTES
    key = ApiKey("long", sha256(text.encode()).digest(), frozenset({"read"}))
    assert await authenticate(f"Bearer {text}", key=key) == key.caller()
    for known in (key, other):
        refusal = await authenticate(f"Bearer {text}t", key=known)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "key_invalid"
        assert "8193 bytes, and the limit is 8192 bytes" in refusal.detail


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic eDp5",
        "ar_x",
        "Bearer ar_x",
        "Bearer a b",
        "Bearer é",
        "Bearer " + "x" * 999,
    ],
)
async def test_anything_else_is_no_key(authorization: str | None) -> None:
    refusal = await authenticate(authorization, key=new_key("x", ["admin"])[1])
    assert isinstance(refusal, Refusal)
    assert refusal.status == 401
    assert refusal.headers
    assert ("invalid_token" in refusal.headers["WWW-Authenticate"]) == (authorization is not None)


@pytest.mark.parametrize(
    "query", ["ticket=", "ticket=x&ticket=y", "ticket=%ff", "ticket=\xff", "a&" * 200 + "ticket=x"]
)
async def test_a_bad_ticket_is_refused_as_one(query: str) -> None:
    refusal = await authenticate(None, "/v1/tasks/t/stream", query, key=new_key("x", ["admin"])[1])
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (401, "ticket_invalid")
