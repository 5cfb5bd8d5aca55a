"""The settings and their defaults, checked wherever they come from. Every limit of guarantee G11 is one of them."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from agent_runtime.domain.references import ARGUMENT_BYTES
from agent_runtime.domain.task import JOURNAL_BYTES
from agent_runtime.domain.tools import Effect, ServerDenial

PLACEHOLDER_KEY = "your-openai-api-key-here"
"""What sample files hold in place of a key, with hyphens or underscores, in lower or upper case."""

REGISTRY_VARIABLE = "AGENT_RUNTIME_TOOL_REGISTRY_YAML"
"""The variable that may hold a whole registry, with the secrets that are written out in it."""

OPENAI_URL = "https://api.openai.com/v1"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class OpenAISettings(Section):
    """The language model: any endpoint that speaks the OpenAI API. Configured once a key or a base URL is set.

    `base_url` is the part before `/responses` or `/chat/completions`; null: OpenAI itself. `stream`: have the answer
    sent as it is written. The endpoint may be silent for `timeout_s` seconds; an answer may take `answer_timeout_s`
    in all, its `max_retries` retries included. A planner is shown `catalogue_tokens` of the tools at most.
    """

    api_key: SecretStr | None = None
    base_url: str | None = None
    model: str = Field(default="gpt-5-mini", min_length=1)
    api: Literal["responses", "chat_completions"] = "responses"
    stream: bool = True
    timeout_s: PositiveFloat = 60
    answer_timeout_s: PositiveFloat = 600
    catalogue_tokens: PositiveInt = 24_000
    max_retries: NonNegativeInt = 2

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

    @property
    def endpoint(self) -> str:
        """The endpoint as it may be shown: scheme, host, port and path of the base URL, no credentials, no query."""
        parts = urlsplit(self.base_url or OPENAI_URL)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask; an empty key and the placeholder of the sample file are none."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return bool(self.base_url) or key.lower().replace("_", "-") not in {"", PLACEHOLDER_KEY}


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+/?", re.IGNORECASE)


class ServerSettings(Section):
    """Where the service listens, and whom it answers (G14).

    `root_path`: the path under which a proxy shows the service, such as `/runtime`. It is part of the links that the
    service gives; requests may have it or not, as the proxy passes them on or strips it.
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
    """Who may call (G14); see `Settings.asks_for_keys` for what a `mode` of null means.

    `keys_file` holds one key on each line, as `agent-runtime keys new` prints it: `NAME sha256:HEX SCOPE ...`.
    It is read again when it changes. `keys` are such lines too. A stream ticket lets in for `stream_ticket_s`.
    """

    mode: Literal["anonymous", "keys"] | None = None
    keys_file: Path | None = None
    keys: tuple[str, ...] = ()
    stream_ticket_s: PositiveFloat = 60


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:///` URL names; a fourth slash begins an absolute path.

    Raises: ValueError saying what is expected; the URL, which may hold a password, is not repeated.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite":
        raise ValueError(
            f"{scheme!r} is not supported yet; use sqlite:///PATH" if rest else "must be a URL like sqlite:///PATH"
        )
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path == ":memory:" or "?" in path:
        raise ValueError("must be sqlite:///PATH: a file, without options")
    return Path(path)


class StorageSettings(Section):
    """`url`: `sqlite:///PATH`, by default `agent-runtime.db` in `folder`; see `sqlite_path`.

    `folder` is the data directory. `Settings` fills it in; it cannot be set from outside.
    """

    url: str | None = None
    folder: Path = Field(default=Path("data"), exclude=True)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            sqlite_path(url)
        return url

    @property
    def database_path(self) -> Path:
        """The SQLite file of the journal."""
        return sqlite_path(self.url) if self.url else self.folder / "agent-runtime.db"


class ApprovalSettings(Section):
    """`auto_effects`: the effect classes of which a plan may run unasked, where its task asks for that.

    `covers_data`: whoever approves a plan also approves its calls that would be asked for because of their data.
    `deny`: the calls that are never made, beside those that the registry denies, whatever was approved.
    A plan that nobody approved `expires_after_s` after it was made ends its task; null: never.
    """

    require_digest: bool = False
    auto_effects: tuple[Effect, ...] = ()
    covers_data: bool = False
    deny: tuple[ServerDenial, ...] = ()
    expires_after_s: PositiveFloat | None = Field(default=None, le=100 * 366 * 86400)


class LimitSettings(Section):
    """The bounds of guarantee G11. Sizes in bytes, times in seconds."""

    prompt_bytes: PositiveInt = 64 * 1024
    head_bytes: PositiveInt = 64 * 1024
    body_bytes: PositiveInt = 1024 * 1024
    json_depth: PositiveInt = 64
    stored_result_bytes: PositiveInt = 256 * 1024
    argument_bytes: PositiveInt = ARGUMENT_BYTES
    journal_bytes: PositiveInt = JOURNAL_BYTES
    server_line_bytes: PositiveInt = 4 * 1024 * 1024
    tools_per_server: PositiveInt = 500
    definition_bytes: PositiveInt = 64 * 1024
    definitions_bytes: PositiveInt = 8 * 1024 * 1024
    list_pages: PositiveInt = 20
    stderr_bytes: PositiveInt = 64 * 1024
    server_start_s: PositiveFloat = 20
    server_install_s: PositiveFloat = 300
    cancel_grace_s: PositiveFloat = 5
    concurrent_tasks: PositiveInt = 128
    tasks_on_same_servers: PositiveInt = 16
    calls_of_a_task: PositiveInt = 8
    concurrent_calls: PositiveInt = 1024
    request_head_s: PositiveFloat = 10
    request_body_s: PositiveFloat = 10
    connections: PositiveInt = 10_000
    stream_clients: PositiveInt = 2000
    unread_bytes: PositiveInt = 256 * 1024 * 1024
    keep_alive_s: PositiveFloat = Field(default=15, le=15)
    shutdown_s: PositiveFloat = 10


def _normalize_level(value: object) -> object:
    """`LOG_LEVEL` is written `DEBUG` or `warn` elsewhere."""
    level = value.lower() if isinstance(value, str) else value
    return "warning" if level == "warn" else level


class LogSettings(Section):
    """`auto`: for people on a terminal, JSON elsewhere."""

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
    """All settings, checked. `load_settings` has made every path absolute.

    `planner` is one of ours, or names one of the operator's as `module:attribute`; `planners/choosing.py` builds it.
    `watch_registry`: read the file of the registry again once it has changed.
    `servers_inherit_proxy`: the servers that are started as processes get the variables of this one that name proxies
    and the certificates of authorities (`NETWORK_VARIABLES`).
    `tool_registry_yaml` is the text of a registry, for platforms without files: it replaces the file, and relative
    paths in it start from the folder of `tool_registry`. `config_file` is the file that was read, if any;
    `config_warnings` is what the operator should hear at start. Neither of these two can be set from outside.
    """

    openai: OpenAISettings = OpenAISettings()
    planner: Annotated[str, AfterValidator(_check_planner)] = "auto"
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    data_dir: Path = Path("data")
    storage: StorageSettings = Field(default=StorageSettings(), validate_default=True)
    runner: Literal["auto", "local"] = "auto"
    servers_inherit_proxy: bool = False
    watch_registry: bool = False
    approval: ApprovalSettings = ApprovalSettings()
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

    @property
    def off_loopback(self) -> bool:
        """Whether others than this machine can reach the service; a host name other than localhost counts as so."""
        host = self.server.host.strip("[]")
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() != "localhost"

    @property
    def asks_for_keys(self) -> bool:
        """Whether every caller must show a key: as `auth.mode` says, else where there are keys, or off loopback."""
        if self.auth.mode is None:
            return self.off_loopback or self.auth.keys_file is not None or bool(self.auth.keys)
        return self.auth.mode == "keys"
