"""Settings: environment > config.yaml > defaults. Every limit of guarantee G11 is one of them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import Effect


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OpenAISettings(_Section):
    """The language model. Configured once a key or a base URL is set."""

    api_key: SecretStr | None = None
    base_url: str | None = None
    model: str = "gpt-5-mini"
    api: Literal["responses", "chat_completions"] = "responses"
    timeout_s: PositiveFloat = 60
    max_retries: NonNegativeInt = 2

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask; an empty key and the placeholder of the sample file are none."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return bool(self.base_url) or key not in {"", "your-openai-api-key-here"}


class ServerSettings(_Section):
    """Where the service listens, and whom it answers (G14)."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    allowed_origins: tuple[str, ...] = ()


class StorageSettings(_Section):
    """`url`: `sqlite:///PATH`; by default `agent-runtime.db` in the data directory."""

    url: str | None = None


class ApprovalSettings(_Section):
    """`auto_effects`: the effect classes of which a plan may run unasked, where its task asks for that."""

    require_digest: bool = False
    auto_effects: tuple[Effect, ...] = ()


class LimitSettings(_Section):
    """The bounds of guarantee G11. Sizes in bytes, times in seconds."""

    prompt_bytes: PositiveInt = 64 * 1024
    body_bytes: PositiveInt = 1024 * 1024
    json_depth: PositiveInt = 64
    stored_result_bytes: PositiveInt = 256 * 1024
    server_line_bytes: PositiveInt = 4 * 1024 * 1024
    tools_per_server: PositiveInt = 500
    definition_bytes: PositiveInt = 64 * 1024
    list_pages: PositiveInt = 20
    stderr_bytes: PositiveInt = 64 * 1024
    server_start_s: PositiveFloat = 20
    cancel_grace_s: PositiveFloat = 5
    concurrent_tasks: PositiveInt = 32
    stream_clients: PositiveInt = 2000
    keep_alive_s: PositiveFloat = Field(default=15, le=15)
    shutdown_s: PositiveFloat = 10


class LogSettings(_Section):
    """`auto`: for people on a terminal, JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Section):
    """All settings, checked. Relative paths have been resolved against the file that held them."""

    openai: OpenAISettings = OpenAISettings()
    planner: Literal["auto", "openai", "rules"] = "auto"
    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    runner: Literal["auto", "local"] = "auto"
    approval: ApprovalSettings = ApprovalSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    data_dir: Path = Path("data")
    tool_registry: Path = Path("tool_registry.yaml")


_REFERENCE = re.compile(r"\$\{(?P<kind>env|file):(?P<name>[^}]+)\}")
REDACTED = "[redacted]"


class Secrets:
    """The secrets that configuration values read, and the only place that knows them (G12)."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in known:
            self.remember(value)

    def remember(self, value: str) -> None:
        """Redact this value from now on; values of fewer than four characters would redact ordinary text."""
        if len(value) >= 4 and value not in self._known:  # noqa: PLR2004 - said in the docstring
            self._known.add(value)
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def expand(self, text: str) -> str:
        """The text with `${env:NAME}` and `${file:/path}` replaced by the secrets that they name.

        Raises: ConfigurationError naming the variable or the file that is not there.
        """
        return _REFERENCE.sub(self._read, text)

    def _read(self, match: re.Match[str]) -> str:
        kind, name = match["kind"], match["name"]
        if kind == "env":
            value = os.environ.get(name)
            if value is None:
                raise ConfigurationError(f"The environment variable {name} is not set.")
        else:
            try:
                value = Path(name).read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The secret file {name} cannot be read: {error}.") from error
        self.remember(value)
        return value

    def redact(self, text: str) -> str:
        """The text without any secret that was ever read."""
        return self._pattern.sub(REDACTED, text) if self._pattern else text
