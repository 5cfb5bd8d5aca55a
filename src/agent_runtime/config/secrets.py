"""The secrets of the operator: where they are read, and how they stay out of everything else (G12)."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from agent_runtime.domain.errors import ConfigurationError

_REFERENCE = re.compile(r"\$\{(?P<kind>env|file):(?P<name>[^}]+)\}")
REDACTED = "[redacted]"


class Secrets:
    """The secrets that configuration values read, and the only place that knows them (G12)."""

    def __init__(self, known: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in known:
            self.remember(value)

    def remember(self, value: str) -> None:
        """Redact this value from now on, as it is and as JSON, Python and URLs quote it.

        Values of fewer than four characters would redact ordinary text.
        """
        if len(value) >= 4 and value not in self._known:  # noqa: PLR2004 - said in the docstring
            self._known |= {value, repr(value)[1:-1], quote(value, safe="")}
            self._known |= {json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False)}
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
            value = self._environ.get(name)
            if value is None:
                raise ConfigurationError(f"The environment variable {name} is not set.")
        else:
            if not Path(name).is_absolute():
                raise ConfigurationError(f"The secret file {name} must be named by its absolute path.")
            try:
                value = Path(name).read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The secret file {name} cannot be read: {error}.") from error
        self.remember(value)
        return value

    def redact(self, text: str) -> str:
        """The text without any secret that was ever read."""
        return self._pattern.sub(REDACTED, text) if self._pattern else text
