"""The URL of the store, a SQLite file or a PostgreSQL database, and the secrets that belong to it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

_POSTGRESQL = ("postgresql", "postgres")
_SECRET_VARIABLES = {"PGPASSWORD": "password", "PGSSLKEY": "sslkey"}
"""The variables of libpq that are taken out of the environment at the start, and the parameters that replace them."""

SECRET_PARAMETERS = ("password", "sslpassword")
_SECRET_FILES = (
    ("passfile", "PGPASSFILE", ".pgpass"),
    ("sslkey", "PGSSLKEY", ".postgresql/postgresql.key"),
    ("servicefile", "PGSERVICEFILE", ".pg_service.conf"),
)
"""The files in which libpq looks for secrets: the parameter and the variable that name each, and its usual place."""


def sqlite_path(url: str) -> Path:
    """Return the path in a `sqlite:///` URL; a fourth slash begins an absolute path.

    Raises: ValueError naming the expected form, without the URL, which may contain a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite":
        raise ValueError(
            f"{scheme!r} is not supported; use sqlite:///PATH or postgresql://USER@HOST/DATABASE"
            if rest
            else "must be a URL like sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        )
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path == ":memory:" or "?" in path:
        raise ValueError("must be sqlite:///PATH: a file, without options")
    return Path(path)


def is_postgresql(url: str) -> bool:
    """Return whether a URL names a PostgreSQL database."""
    return url.partition("://")[0] in _POSTGRESQL


def show(url: str) -> str:
    """Return the URL of a PostgreSQL database for display, without credentials and parameters."""
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def find_passwords(url: str) -> list[str]:
    """Return every password in the URL of a PostgreSQL database, as it is written and as it is sent."""
    parts = urlsplit(url)
    written = parts.netloc.rpartition("@")[0].partition(":")[2]
    found = [value for name, value in parse_qsl(parts.query) if name in SECRET_PARAMETERS]
    return [text for text in (written, unquote(written), *found) if text]


def read_libpq(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment says of a PostgreSQL connection, as the fields of `StorageSettings`."""
    given = dict(parse_qsl(urlsplit(url).query))
    secrets = {
        parameter: SecretStr(environ[variable])
        for variable, parameter in _SECRET_VARIABLES.items()
        if environ.get(variable) and parameter not in given
    }
    return {"libpq": secrets, "secret_files": tuple(_find_secret_files(given, environ))}


def _find_secret_files(given: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Path]:
    for parameter, variable, usual in _SECRET_FILES:
        named = given.get(parameter) or environ.get(variable)
        if named:
            yield Path(named).expanduser().absolute()
        elif environ.get("HOME"):
            yield Path(environ["HOME"]) / usual
