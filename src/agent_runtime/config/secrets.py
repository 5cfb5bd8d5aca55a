"""Read the operator's secrets. They are redacted from then on (G12)."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.text.redaction import Redactor

_REFERENCE = re.compile(r"\$\{(?P<kind>env|file):(?P<name>[^}]+)\}")


def without_references(text: str) -> str:
    """Return the text without its references to secrets."""
    return _REFERENCE.sub("", text)


def variables_in(text: str) -> set[str]:
    """Return the names of the variables that a text references with `${env:NAME}`."""
    return {match["name"] for match in _REFERENCE.finditer(text) if match["kind"] == "env"}


class Secrets:
    """Reads the secrets that configuration values reference. `redactor` knows every secret that was read.

    Keeps a copy of the environment: `protect_process` removes secrets from that of the process, but they are needed
    whenever a server starts.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.redactor = Redactor()
        self._environ = dict(os.environ if environ is None else environ)

    def expand(self, text: str) -> str:
        """Return the text with `${env:NAME}` and `${file:/path}` replaced by the secrets.

        Raises: ConfigurationError naming the variable or file that is missing.
        """
        return _REFERENCE.sub(self._read, text)

    def read_variables(self, names: Iterable[str]) -> dict[str, str]:
        """Return the variables that are set. Credentials in them, as in a proxy's URL, are redacted from then on."""
        found = {name: self._environ[name] for name in names if self._environ.get(name)}
        for value in found.values():
            self.redactor.remember_password_in(value)
        return found

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
                value = Path(name).read_text(encoding="utf-8-sig").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The secret file {name} cannot be read: {error}.") from error
        self.redactor.remember(value)
        return value
