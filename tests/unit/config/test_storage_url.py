"""The URL of a PostgreSQL database in the settings: where it comes from, and that its password is a secret."""

from pathlib import Path

import pytest

from agent_runtime.config import Secrets, Settings, load_settings
from agent_runtime.mcp_servers.own_files import find_own_files

URL = "postgresql://ann:p%40ssw0rd-1@db.example:5432/tasks?sslpassword=keyp4ssword"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(environ: dict[str, str], text: str = "") -> Settings:
    Path("config.yaml").write_text(text, encoding="utf-8")
    return load_settings(environ=environ)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_the_url_is_shown_without_what_is_secret(scheme: str) -> None:
    url = URL.replace("postgresql", scheme)
    storage = load({}, f"storage: {{url: '{url}'}}").storage
    assert storage.on_postgresql
    assert storage.url == url
    assert storage.shown == "postgresql://db.example:5432/tasks"
    assert "ssw0rd" not in repr(storage)


def test_every_password_of_the_connection_is_redacted() -> None:
    secrets = Secrets(environ={})
    environ = {"AGENT_RUNTIME_STORAGE__URL": URL, "PGPASSWORD": "from-the-environment"}
    storage = load_settings(environ=environ, secrets=secrets).storage
    assert {name: value.get_secret_value() for name, value in storage.libpq.items()} == {
        "password": "from-the-environment"
    }
    for password in ("p%40ssw0rd-1", "p@ssw0rd-1", "keyp4ssword", "from-the-environment"):
        assert secrets.redactor.redact(f"It says {password}.") == "It says [redacted]."
    assert "from-the-environment" not in repr(storage)


def test_the_files_with_secrets_of_the_connection_are_known() -> None:
    environ = {"AGENT_RUNTIME_STORAGE__URL": f"{URL}&sslkey=/etc/key", "HOME": "/home/ann", "PGPASSFILE": "/etc/pass"}
    files = load_settings(environ=environ).storage.secret_files
    assert files == (Path("/etc/pass"), Path("/etc/key"), Path("/home/ann/.pg_service.conf"))
    assert set(files) <= set(find_own_files(load_settings(environ=environ), (), None).files)  # hidden from servers
    assert load_settings(environ={"HOME": "/home/ann"}).storage.secret_files == ()


def test_the_variable_of_platforms_is_the_default_in_the_image_alone() -> None:
    image = {"AGENT_RUNTIME_TAKES_DATABASE_URL": "1", "DATABASE_URL": URL}
    assert load(image).storage.url == URL
    assert load(image).config_warnings == ()
    assert load(image, "storage: {url: 'sqlite:////x/t.db'}").storage.url == "sqlite:////x/t.db"
    assert load({**image, "AGENT_RUNTIME_STORAGE__URL": "sqlite:////y.db"}).storage.url == "sqlite:////y.db"
    assert load({**image, "DATABASE_URL": ""}).storage.url is None
    elsewhere = load({"DATABASE_URL": URL})
    assert elsewhere.storage.url is None
    assert "DATABASE_URL" in elsewhere.config_warnings[0]
