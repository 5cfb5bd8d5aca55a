"""The settings with their defaults and validation. Every limit of guarantee G11 is a setting."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from agent_runtime.config.extra_body import check_extra_body
from agent_runtime.config.limits import LimitSettings
from agent_runtime.config.retention import RetentionSettings
from agent_runtime.config.section import Section
from agent_runtime.config.storage import SECRET_PARAMETERS, find_passwords, is_postgresql, show, sqlite_path
from agent_runtime.domain.tools import Effect, ServerDenial

PLACEHOLDER_KEY = "your-openai-api-key-here"
"""The placeholder for a key in sample files, with hyphens or underscores, in lower or upper case."""

REGISTRY_VARIABLE = "AGENT_RUNTIME_TOOL_REGISTRY_YAML"
"""The variable that may contain the text of a registry, including literal secrets."""

OPENAI_URL = "https://api.openai.com/v1"


_OPENAI_MODEL = "gpt-5-mini"
_OPENAI_TIMEOUT_S = 60.0
_OTHER_TIMEOUT_S = 300.0
"""The longest silence elsewhere: a model on a laptop reads a long prompt, or is loaded first, before it says a word."""

_OPENAI_HOSTS = (".openai.com", ".openai.azure.com", ".openai.azure.us", ".cognitiveservices.azure.com")


def _is_at_openai(base_url: str | None) -> bool:
    """Return whether a base URL is that of OpenAI or of Azure OpenAI; None is OpenAI's."""
    return not base_url or (urlsplit(base_url).hostname or "").endswith(_OPENAI_HOSTS)


class OpenAISettings(Section):
    """The language model: any endpoint with the OpenAI API. It is configured if a key or a base URL is set.

    `base_url`: the URL before `/responses` or `/chat/completions`; None: OpenAI. `stream`: get the answer in pieces.
    `timeout_s`: the longest silence of the endpoint in seconds. `answer_timeout_s`: the limit for an answer, including
    its `max_retries` retries. `catalogue_tokens`: the limit for the tools in a prompt of the planner.
    `answer_tokens`: the limit for one answer; None: 16,384, and 4,096 for a plan from another endpoint than OpenAI's.
    `plan_fields`: whether the planner shows the model the fields that most steps leave out; `auto`: unless it is small.
    `extra_body`: further fields of each request. `model_class`: `module:attribute` of another model class of
    openai-agents.

    Some defaults depend on the endpoint, and are filled in: `api` is never `auto`, and `model` is empty only if the
    endpoint is to be asked for it.
    """

    api_key: SecretStr | None = None
    base_url: str | None = None
    model: str = Field(default="", validate_default=True)
    api: Literal["auto", "responses", "chat_completions"] = Field(default="auto", validate_default=True)
    temperature: float | None = Field(default=None, ge=0, le=2)
    extra_body: Annotated[dict[str, JsonValue], AfterValidator(check_extra_body)] = Field(default_factory=dict)
    stream: bool = True
    timeout_s: PositiveFloat = Field(default=None, validate_default=True)
    answer_timeout_s: PositiveFloat = 600
    catalogue_tokens: PositiveInt = 24_000
    answer_tokens: int | None = Field(default=None, ge=256)
    plan_fields: Literal["auto", "few", "all"] = "auto"
    max_retries: NonNegativeInt = 2
    model_class: str | None = Field(default=None, pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$")

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value().strip() if key else ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError("must be printable ASCII, as a header can carry it; it holds another character")
        return SecretStr(text) if key else None

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str | None) -> str | None:
        if url:
            try:
                parts = urlsplit(url)
                named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
            except ValueError:
                named = False
            if not named:
                raise ValueError("must be a URL like http://localhost:11434/v1")
        return url

    @field_validator("model", mode="before")
    @classmethod
    def _fill_in_model(cls, model: object, info: ValidationInfo) -> object:
        given = model.strip() if isinstance(model, str) else model
        if given not in {None, ""}:
            return given
        return _OPENAI_MODEL if _is_at_openai(info.data.get("base_url")) else ""

    @field_validator("api")
    @classmethod
    def _choose_api(cls, api: str, info: ValidationInfo) -> str:
        chosen = "responses" if _is_at_openai(info.data.get("base_url")) else "chat_completions"
        return chosen if api == "auto" else api

    @field_validator("timeout_s", mode="before")
    @classmethod
    def _fill_in_timeout(cls, seconds: object, info: ValidationInfo) -> object:
        default = _OPENAI_TIMEOUT_S if _is_at_openai(info.data.get("base_url")) else _OTHER_TIMEOUT_S
        return default if seconds is None else seconds

    @property
    def at_openai(self) -> bool:
        """Return whether the endpoint is that of OpenAI or of Azure OpenAI."""
        return _is_at_openai(self.base_url)

    @property
    def endpoint(self) -> str:
        """The endpoint for display: scheme, host, port and path of the base URL, without credentials and query."""
        parts = urlsplit(self.base_url or OPENAI_URL)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")

    @property
    def on_loopback(self) -> bool:
        """Return whether the endpoint is on this machine."""
        return _is_loopback(urlsplit(self.endpoint).hostname or "")

    @property
    def configured(self) -> bool:
        """Return whether a model is configured."""
        return bool(self.base_url) or self.has_key

    @property
    def has_key(self) -> bool:
        """Return whether a key is set. An empty one and the placeholder of the sample files do not count."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return key.lower().replace("_", "-") not in {"", PLACEHOLDER_KEY}


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+/?", re.IGNORECASE)


class ServerSettings(Section):
    """The address of the service, and the hosts and origins that it accepts (G14).

    `root_path`: the path under which a proxy serves the service, such as `/runtime`. Links contain it. The proxy may
    strip it from requests or not.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    allowed_origins: tuple[str, ...] = ()

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "must name each origin, as https://cellery.example: a scheme and a host, no path, no *"
                )
        return origins


class AuthSettings(Section):
    """The authentication of callers (G14). `mode` None: see `Settings.asks_for_keys`.

    `keys_file`: one key per line, as `agent-runtime keys new` prints it: `NAME sha256:HEX SCOPE ...`. It is read again
    when it changes. `keys`: more such lines. `stream_ticket_s`: the seconds for which a stream ticket is valid.
    """

    mode: Literal["anonymous", "keys"] | None = None
    keys_file: Path | None = None
    keys: tuple[str, ...] = ()
    stream_ticket_s: PositiveFloat = 60


class StorageSettings(Section):
    """`url`: `sqlite:///PATH`, by default `agent-runtime.db` in `folder`; or `postgresql://...` as libpq reads it.

    `folder`: the data directory. `libpq`: parameters of the connection that the environment has and the URL has not,
    because `protect_process` takes their variables away. `secret_files`: the files from which libpq may read secrets.
    The loading of the settings sets these three; they are no settings.
    """

    url: str | None = Field(default=None, repr=False)
    folder: Path = Field(default=Path("data"), exclude=True)
    libpq: Mapping[str, SecretStr] = Field(default_factory=dict, exclude=True)
    secret_files: tuple[Path, ...] = Field(default=(), exclude=True)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and not is_postgresql(url):
            sqlite_path(url)
        return url

    @property
    def postgresql_url(self) -> str | None:
        """The URL of the PostgreSQL database that is the store; None if a SQLite file is."""
        return self.url if self.url is not None and is_postgresql(self.url) else None

    @property
    def on_postgresql(self) -> bool:
        """Return whether the store is a PostgreSQL database."""
        return self.postgresql_url is not None

    @property
    def local_folder(self) -> Path | None:
        """The data directory, if it holds the state of the service; None on PostgreSQL."""
        return None if self.on_postgresql else self.folder

    @property
    def database_path(self) -> Path:
        """The SQLite file of the journal. Raises: ValueError on PostgreSQL, where there is none."""
        return sqlite_path(self.url) if self.url else self.folder / "agent-runtime.db"

    @property
    def shown(self) -> str:
        """The store for display, without credentials."""
        return str(self.database_path) if self.postgresql_url is None else show(self.postgresql_url)

    @property
    def passwords(self) -> list[str]:
        """Every password of a connection to the store."""
        given = [value.get_secret_value() for name, value in self.libpq.items() if name in SECRET_PARAMETERS]
        return given if self.postgresql_url is None else [*given, *find_passwords(self.postgresql_url)]


class ApprovalSettings(Section):
    """The operator's policy for approvals.

    `auto_effects`: the policy approves plans whose effects are all among these, if the task requests it.
    `covers_data`: a person's approval of a plan covers the calls that would need approval because of their data.
    `deny`: calls that are never made, whatever was approved, in addition to those that the registry denies.
    `expires_after_s`: the seconds after which a plan without approval expires and its task ends; None: never.
    """

    require_digest: bool = False
    auto_effects: tuple[Effect, ...] = ()
    covers_data: bool = False
    deny: tuple[ServerDenial, ...] = ()
    expires_after_s: PositiveFloat | None = Field(default=None, le=100 * 366 * 86400)


def _normalize_level(value: object) -> object:
    """Return the level in our spelling, also for `DEBUG` and `warn`, which other services use."""
    level = value.lower() if isinstance(value, str) else value
    return "warning" if level == "warn" else level


class LogSettings(Section):
    """Format `auto`: for people on a terminal, JSON elsewhere."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_normalize_level)] = "info"
    format: Literal["auto", "json", "console"] = "auto"


_PLANNERS = ("auto", "openai", "rules")
_ATTRIBUTE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _check_planner(planner: str) -> str:
    if planner not in _PLANNERS and not _ATTRIBUTE.fullmatch(planner):
        ours = ", ".join(map(repr, _PLANNERS))
        raise ValueError(f"must be {ours} or module:attribute, as in 'my_package.planning:Planner'")
    return planner


class Settings(Section):
    """All settings, validated. `load_settings` makes every path absolute.

    `planner`: a built-in one, or an operator's own as `module:attribute`; `planners/choosing.py` builds it.
    `runner`: `local` runs tasks in this process, which owns the store; `procrastinate` shares store and tasks with
    other processes; `auto`, which is filled in: `local` on SQLite, `procrastinate` on PostgreSQL. `role`: what a
    process that shares them does: `worker` runs tasks, `api` only takes requests, `all` does both.
    `watch_registry`: reload the registry file when it changes.
    `servers_inherit_proxy`: stdio servers get the variables of this process that name proxies and CA certificates
    (`NETWORK_VARIABLES`).
    `tool_registry_yaml`: the text of a registry, for platforms without files. It replaces the file; relative paths in
    it start from the folder of `tool_registry`.
    `config_file`: the file that was read, if any. `config_warnings`: warnings to log at start. These two are not
    settings.
    """

    openai: OpenAISettings = OpenAISettings()
    planner: Annotated[str, AfterValidator(_check_planner)] = "auto"
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    data_dir: Path = Path("data")
    storage: StorageSettings = Field(default=StorageSettings(), validate_default=True)
    runner: Literal["auto", "local", "procrastinate"] = Field(default="auto", validate_default=True)
    role: Literal["all", "api", "worker"] = Field(default="all", validate_default=True)
    servers_inherit_proxy: bool = False
    watch_registry: bool = False
    approval: ApprovalSettings = ApprovalSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    tool_registry: Path = Path("tool_registry.yaml")
    tool_registry_yaml: str | None = None
    config_file: Path | None = None
    config_warnings: tuple[str, ...] = ()

    @field_validator("storage")
    @classmethod
    def _fill_in_folder(cls, storage: StorageSettings, info: ValidationInfo) -> StorageSettings:
        return storage.model_copy(update={"folder": info.data["data_dir"]}) if "data_dir" in info.data else storage

    @field_validator("runner")
    @classmethod
    def _choose_runner(cls, runner: str, info: ValidationInfo) -> str:
        storage: StorageSettings | None = info.data.get("storage")
        shared = storage is not None and storage.on_postgresql
        if runner == "procrastinate" and not shared:
            raise ValueError("must be 'auto' or 'local' on SQLite; 'procrastinate' needs storage.url: postgresql://...")
        return ("procrastinate" if shared else "local") if runner == "auto" else runner

    @field_validator("role")
    @classmethod
    def _check_role(cls, role: str, info: ValidationInfo) -> str:
        if role != "all" and info.data.get("runner") == "local":
            raise ValueError(
                "must be 'all', because one process does everything here; other roles need storage.url: "
                "postgresql://... and the runner 'procrastinate'"
            )
        return role

    @property
    def is_shared(self) -> bool:
        """Return whether other processes may use the store and run tasks at the same time."""
        return self.runner == "procrastinate"

    @property
    def off_loopback(self) -> bool:
        """Return whether other machines can reach the service. Host names other than localhost count as reachable."""
        return not _is_loopback(self.server.host.strip("[]"))

    @property
    def asks_for_keys(self) -> bool:
        """Return whether callers need keys: as `auth.mode` says, else if keys are configured or off loopback."""
        if self.auth.mode is None:
            return self.off_loopback or self.auth.keys_file is not None or bool(self.auth.keys)
        return self.auth.mode == "keys"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
