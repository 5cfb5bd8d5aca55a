"""Load the settings: command line > environment > config.yaml > defaults."""

import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from agent_runtime.config.files import describe_fault, describe_unknown_key, format_place, read_yaml
from agent_runtime.config.placeholders import correct_placeholders, without_placeholders
from agent_runtime.config.secrets import Secrets
from agent_runtime.config.section import Section
from agent_runtime.config.settings import Settings
from agent_runtime.config.storage import read_libpq, sqlite_path
from agent_runtime.domain.errors import ConfigurationError

PREFIX = "AGENT_RUNTIME_"

_Key = tuple[str, ...]

_FOUND_OUT = frozenset(
    {
        ("config_file",),
        ("config_warnings",),
        ("storage", "folder"),
        ("storage", "libpq"),
        ("storage", "secret_files"),
    }
)
"""The fields of the settings that nobody sets."""


def _keys(section: type[BaseModel] = Settings, above: _Key = ()) -> Iterator[tuple[_Key, Any]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, (*above, name))
        elif (*above, name) not in _FOUND_OUT:
            yield (*above, name), field.annotation


_KNOWN: Mapping[_Key, Any] = dict(_keys())
_PATHS = (Path, Path | None)
_SECTIONS = {key[:depth] for key in _KNOWN for depth in range(len(key))}
_VARIABLES = {PREFIX + "__".join(key).upper(): key for key in _KNOWN}
_COMMON_VARIABLES = {
    "OPENAI_API_KEY": ("openai", "api_key"),
    "OPENAI_BASE_URL": ("openai", "base_url"),
    "LOG_LEVEL": ("log", "level"),
    "PORT": ("server", "port"),
    "CORS_ORIGINS": ("server", "allowed_origins"),
}
_UNUSED = re.compile(r"OTEL_\w+|LANGFUSE_\w+|DATABASE_URL|REDIS_URL|TEMPORAL_ADDRESS|S3_ENDPOINT|OIDC_ISSUER")
"""Well-known variables of other services that this one does not use."""
_AS_WRITTEN = frozenset({("tool_registry_yaml",), ("approval", "deny")})
"""Settings in which secrets are expanded later, when they are used, or never: denials are compared literally."""
_TAKES_DATABASE_URL = PREFIX + "TAKES_DATABASE_URL"
"""The image sets this variable. Elsewhere DATABASE_URL may be of any other program."""

_NO_SETTINGS = frozenset({PREFIX + "CONFIG", PREFIX + "API_KEY", _TAKES_DATABASE_URL})
"""Variables with the prefix that are not settings: the path of the file, the API key of the command line, and whether
DATABASE_URL is the default of `storage.url`.
"""

_OF_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT)(_.*)?|PORT_\d+_.*")
"""Variables that Kubernetes sets in every container if a service is named agent-runtime."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, its origin, and the folder for relative paths in it."""

    value: Any
    origin: str
    folder: Path
    from_file: bool = False


def load_settings(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    secrets: Secrets | None = None,
) -> Settings:
    """Return the settings: `overrides` > environment > file > defaults.

    The file is `config_file`, else the one that AGENT_RUNTIME_CONFIG names, else `config.yaml` of the working
    directory if it exists. Keys of `overrides` are dotted or nested; None there and empty environment variables are
    ignored. The redactor of `secrets` will know all expanded secrets and the credentials of the model.

    Raises: ConfigurationError with one line for each fault, naming its origin, the field and the expected value.
    """
    environ = os.environ if environ is None else environ
    secrets = Secrets(environ=environ) if secrets is None else secrets
    file = _config_file(config_file, environ)
    faults: list[str] = []
    given: dict[_Key, _Given] = {}
    if _takes_database_url(environ):
        given[("storage", "url")] = _Given(environ["DATABASE_URL"], "DATABASE_URL", Path.cwd())
    if file:
        for key, value in _flatten(read_yaml(file), (), str(file), faults):
            given[key] = _Given(value, str(file), file.parent, from_file=True)
    variables, warnings = _read_environment(environ)
    given |= variables
    for key, value in _flatten(_nest(overrides or {}), (), "command line", faults):
        if value is not None:
            given[key] = _Given(value, "command line", Path.cwd())
    warnings += _list_placeholders(given)
    facts: dict[str, Any] = {"config_file": file, "config_warnings": tuple(warnings)}
    settings = _add_libpq(_build_settings(given, secrets, _default_paths(file) | facts, faults), environ)
    for password in settings.storage.passwords:
        secrets.redactor.remember(password)
    model_key = settings.openai.api_key.get_secret_value() if settings.openai.api_key else ""
    if settings.openai.configured and without_placeholders(model_key):
        secrets.redactor.remember(model_key)
    secrets.redactor.remember_literal("", settings.openai.base_url or "")
    return settings


def _takes_database_url(environ: Mapping[str, str]) -> bool:
    return bool(environ.get(_TAKES_DATABASE_URL) and environ.get("DATABASE_URL"))


def _add_libpq(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return the settings with what the environment says of a PostgreSQL connection."""
    url = settings.storage.postgresql_url
    if url is None:
        return settings
    return settings.model_copy(update={"storage": settings.storage.model_copy(update=read_libpq(url, environ))})


def _config_file(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    if named is None and not environ.get(PREFIX + "CONFIG"):
        usual = Path.cwd() / "config.yaml"
        return usual if usual.exists() else None
    file = Path.cwd() / (named or environ[PREFIX + "CONFIG"])
    if not file.is_file():
        who = "--config" if named else PREFIX + "CONFIG"
        raise ConfigurationError(f"{file}: there is no such file; {who} must name a config.yaml.")
    return file


def _default_paths(file: Path | None) -> dict[str, Any]:
    beside = (file.parent if file else Path.cwd()) / "tool_registry.yaml"
    registry = beside if beside.exists() else Path.cwd() / "tool_registry.yaml"
    return {"data_dir": Path.cwd() / "data", "tool_registry": registry}


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = {**at.get(last, {}), **_nest(value)} if isinstance(value, Mapping) else value
    return tree


def _flatten(tree: Any, above: _Key, origin: str, faults: list[str]) -> Iterator[tuple[_Key, Any]]:
    """Yield every setting in nested mappings. Unknown keys are added to `faults`."""
    place = f"{origin}: {format_place(above)}: " if above else f"{origin}: "
    if tree is None:  # an empty file, or a section with only comments
        return
    if not isinstance(tree, Mapping):
        faults.append(f"{place}must be a mapping of keys to values.")
        return
    siblings = {key[len(above)] for key in _KNOWN if key[: len(above)] == above}
    for name, value in tree.items():
        key = (*above, str(name))
        if key in _SECTIONS:
            yield from _flatten(value, key, origin, faults)
        elif key in _KNOWN:
            yield key, value
        else:
            elsewhere = [format_place(known) for known in _KNOWN if known[-1] == str(name)]
            hint = f"unknown key; did you mean {elsewhere[0]!r}?" if elsewhere else describe_unknown_key(name, siblings)
            faults.append(f"{origin}: {format_place(key)}: {hint}{'' if hint.endswith('?') else '.'}")


def _list_placeholders(given: Mapping[_Key, _Given]) -> Iterator[str]:
    """Yield a warning about each variable in the file that is written in the notation of another program."""
    for key, one in given.items():
        if one.from_file and key not in _AS_WRITTEN:
            for text in _list_texts(one.value):
                for what in correct_placeholders(text):
                    yield f"{one.origin}: {format_place(key)}: {what}."


def _list_texts(value: Any) -> Iterator[str]:
    """Yield every text in a value of the file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _list_texts(item)


def _read_environment(environ: Mapping[str, str]) -> tuple[dict[_Key, _Given], list[str]]:
    """Return the settings from environment variables, and warnings about unused and misspelled ones."""
    here = Path.cwd()
    given = {
        key: _Given(_read_variable(environ[name], key), name, here)
        for name, key in [*_COMMON_VARIABLES.items(), *_VARIABLES.items()]
        if environ.get(name)
    }
    warnings = []
    origins = given.get(("server", "allowed_origins"))
    if origins is not None and origins.origin == "CORS_ORIGINS" and "*" in origins.value:
        given[("server", "allowed_origins")] = replace(origins, value=[each for each in origins.value if each != "*"])
        warnings.append(
            "CORS_ORIGINS: * is not honoured, because any page could use this service then: name each origin, with "
            "commas between them."
        )
    unused = [name for name in sorted(environ) if _UNUSED.fullmatch(name)]
    if _takes_database_url(environ):
        unused.remove("DATABASE_URL")
    if unused:
        warnings.append(f"These environment variables are not used by this service: {', '.join(unused)}.")
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in _VARIABLES and name not in _NO_SETTINGS:
            near = _suggest_variable(name, environ[name])
            if near:
                warnings.append(f"The environment variable {name} has no meaning and was ignored; did you mean {near}?")
    return given, warnings


def _suggest_variable(name: str, value: str) -> str | None:
    asked = name.upper().removeprefix(PREFIX)
    if _OF_KUBERNETES.fullmatch(asked) or (asked == "PORT" and "://" in value):
        return None
    known = [variable.removeprefix(PREFIX) for variable in [*_VARIABLES, PREFIX + "CONFIG"]]
    same_end = [variable for variable in known if variable.split("__")[-1] == asked]
    near = same_end or difflib.get_close_matches(asked, known, n=1, cutoff=0.7)
    return PREFIX + near[0] if near else None


def _read_variable(text: str, key: _Key) -> Any:
    """Parse a list or a mapping in a variable: JSON, or for a list items separated by commas. Other settings are
    returned unchanged.
    """
    kind = get_origin(_KNOWN[key])
    if kind not in {tuple, dict}:
        return text
    if text.lstrip().startswith("[" if kind is tuple else "{"):
        with contextlib.suppress(ValueError):  # `[::1],localhost` is a list, although not JSON
            return json.loads(text)
    return [item.strip() for item in text.split(",") if item.strip()] if kind is tuple else text


def _build_settings(
    given: Mapping[_Key, _Given], secrets: Secrets, facts: Mapping[str, Any], faults: list[str]
) -> Settings:
    tree: dict[str, Any] = dict(facts)
    for key, one in given.items():
        try:
            value = _expand(one.value, secrets) if one.from_file and key not in _AS_WRITTEN else one.value
        except ConfigurationError as error:
            faults.append(f"{one.origin}: {format_place(key)}: {error}")
            continue
        if value == "" and _KNOWN[key] in _PATHS:  # an empty path would mean the base folder
            faults.append(f"{one.origin}: {format_place(key)}: must name a path; it is empty.")
            continue
        at = tree
        for section in key[:-1]:
            at = at.setdefault(section, {})
        at[key[-1]] = _make_absolute(key, value, one.folder)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        for details in error.errors():
            location = details["loc"]
            origin = next((one.origin for key, one in given.items() if key == location[: len(key)]), "default")
            fault = describe_fault(Settings, location, details)
            faults.append(f"{origin}: {fault}{'' if fault.endswith('?') else '.'}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return settings


def _expand(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, list):
        return [_expand(item, secrets) for item in value]
    if isinstance(value, dict):
        return {name: _expand(item, secrets) for name, item in value.items()}
    return secrets.expand(value) if isinstance(value, str) else value


def _make_absolute(key: _Key, value: Any, folder: Path) -> Any:
    """Return a path, or the URL of a SQLite file, in absolute form; other values unchanged."""
    if not isinstance(value, str | Path):
        return value
    if _KNOWN[key] in _PATHS:
        return folder / Path(value).expanduser()
    if key == ("storage", "url"):
        try:
            return f"sqlite:///{folder / sqlite_path(str(value))}"
        except ValueError:
            return value  # validation rejects it with a reason
    return value
