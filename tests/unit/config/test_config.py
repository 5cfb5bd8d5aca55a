"""The settings: the precedence of their sources, and the messages about mistakes."""

import itertools
import json
import time
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from agent_runtime.builtin.servers import SERVERS
from agent_runtime.config import ApprovalSettings, LimitSettings, OpenAISettings, Secrets, Settings, load_settings
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import Effect, HttpServer, ServerDenial
from agent_runtime.registry.file import load_registry

SAMPLE = Path(__file__).parents[3] / "config.yaml"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "config.yaml") -> Path:
    path = Path.cwd() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(text), environ=environ or {})
    return str(caught.value)


def test_with_no_file_and_no_variable_the_defaults_are_in_force(home: Path) -> None:
    settings = load_settings(environ={})
    assert (settings.server.host, settings.server.port, settings.planner) == ("127.0.0.1", 8000, "auto")
    assert settings.data_dir == home / "data"
    assert settings.storage.database_path == home / "data" / "agent-runtime.db"
    assert settings.tool_registry == home / "tool_registry.yaml"
    assert (settings.config_file, settings.config_warnings) == (None, ())


def test_the_command_line_beats_the_environment_which_beats_the_file_which_beats_the_defaults() -> None:
    file = write("server: {port: 1, host: '::1'}\nlog: {level: error}\nopenai: {model: m}\n")
    environ = {"AGENT_RUNTIME_SERVER__PORT": "2", "AGENT_RUNTIME_LOG__LEVEL": "debug"}
    settings = load_settings(file, {"server.port": 3}, environ)
    assert (settings.server.port, settings.log.level) == (3, "debug")
    assert (settings.server.host, settings.openai.model, settings.openai.max_retries) == ("::1", "m", 2)


def test_overrides_are_dotted_or_nested_and_null_says_nothing() -> None:
    overrides = {"server": {"port": 5}, "server.host": "localhost", "log.level": None, "data_dir": Path("d")}
    settings = load_settings(overrides=overrides, environ={})
    assert (settings.server.port, settings.server.host, settings.log.level) == (5, "localhost", "info")
    assert settings.data_dir == Path.cwd() / "d"


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"command line: server\.prot: unknown key; did you mean 'port'\?"):
        load_settings(overrides={"server.prot": 1}, environ={})


def test_the_variable_names_the_file_unless_the_argument_does() -> None:
    write("server: {port: 1}")
    write("server: {port: 2}", "etc/two.yaml")
    three = write("server: {port: 3}", "etc/three.yaml")
    environ = {"AGENT_RUNTIME_CONFIG": "etc/two.yaml"}
    assert load_settings(environ={}).server.port == 1
    assert load_settings(environ=environ).server.port == 2
    assert load_settings(three, environ=environ).server.port == 3


@pytest.mark.parametrize(("argument", "who"), [(Path("no.yaml"), "--config"), (None, "AGENT_RUNTIME_CONFIG")])
def test_a_named_file_must_exist(argument: Path | None, who: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"no\.yaml: there is no such file; {who}"):
        load_settings(argument, environ={"AGENT_RUNTIME_CONFIG": "no.yaml"})


def test_the_usual_variables_of_other_tools_are_honoured_below_our_own() -> None:
    file = write("openai: {api_key: from-file, base_url: 'http://file'}")
    environ = {"OPENAI_API_KEY": "sk-usual", "OPENAI_BASE_URL": "http://usual", "LOG_LEVEL": "WARN"}
    settings = load_settings(file, environ=environ)
    assert settings.openai.api_key is not None
    assert settings.openai.api_key.get_secret_value() == "sk-usual"
    assert (settings.openai.base_url, settings.log.level) == ("http://usual", "warning")
    settings = load_settings(file, environ=environ | {"AGENT_RUNTIME_OPENAI__BASE_URL": "http://own"})
    assert settings.openai.base_url == "http://own"


def test_the_variables_of_container_platforms_are_honoured() -> None:
    environ = {"PORT": "8080", "CORS_ORIGINS": "http://localhost:3000, https://a.example"}
    settings = load_settings(write("server: {port: 1}"), environ=environ)
    assert settings.server.port == 8080
    assert settings.server.allowed_origins == ("http://localhost:3000", "https://a.example")
    own = {"AGENT_RUNTIME_SERVER__PORT": "9"}
    assert load_settings(environ=environ | own).server.port == 9


def test_cors_for_everybody_is_left_out_and_warned_of() -> None:
    settings = load_settings(environ={"CORS_ORIGINS": "*,http://localhost:3000"})
    assert settings.server.allowed_origins == ("http://localhost:3000",)
    (warning,) = settings.config_warnings
    assert warning.startswith("CORS_ORIGINS: * is not honoured")


def test_variables_of_other_services_are_named_once_as_not_used() -> None:
    environ = {"REDIS_URL": "redis://x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "LANGFUSE_HOST": "h", "HOME": "/"}
    (warning,) = load_settings(environ=environ).config_warnings
    assert warning == (
        "These environment variables are not used by this service: "
        "LANGFUSE_HOST, OTEL_EXPORTER_OTLP_ENDPOINT, REDIS_URL."
    )


def test_the_registry_may_be_text_of_the_environment_and_keeps_its_references() -> None:
    text = "tool_registry: [{id: a, type: remote_http, config: {base_url: 'http://h', headers: {A: '${env:NO}'}}}]"
    settings = load_settings(environ={"AGENT_RUNTIME_TOOL_REGISTRY_YAML": text})
    (entry,) = load_registry(settings.tool_registry, SERVERS, settings.tool_registry_yaml)
    assert isinstance(entry, HttpServer)
    assert entry.config.headers == {"A": "${env:NO}"}


@pytest.mark.parametrize("text", ["tool_registry: [5]", "tool_registry: {", "- a"])
def test_a_fault_in_the_text_of_the_registry_names_its_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^AGENT_RUNTIME_TOOL_REGISTRY_YAML: "):
        load_registry(Path("nowhere.yaml"), SERVERS, text)


@pytest.mark.parametrize("key", ["your-openai-api-key-here", "YOUR_OPENAI_API_KEY_HERE", ""])
def test_the_placeholders_of_sample_files_are_no_key(key: str) -> None:
    assert not load_settings(write(f"openai: {{api_key: '{key}'}}"), environ={}).openai.configured


def test_an_empty_variable_says_nothing() -> None:
    settings = load_settings(write("openai: {api_key: abc}"), environ={"OPENAI_API_KEY": "", "LOG_LEVEL": ""})
    assert settings.openai.configured
    assert settings.log.level == "info"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [("a.example, b.example", ("a.example", "b.example")), ('["a"]', ("a",)), ("[::1],a", ("[::1]", "a"))],
)
def test_a_list_in_a_variable_is_json_or_has_commas(text: str, hosts: tuple[str, ...]) -> None:
    settings = load_settings(environ={"AGENT_RUNTIME_SERVER__ALLOWED_HOSTS": text})
    assert settings.server.allowed_hosts == hosts


def test_effects_are_read_as_such() -> None:
    settings = load_settings(environ={"AGENT_RUNTIME_APPROVAL__AUTO_EFFECTS": "read,write"})
    assert settings.approval == ApprovalSettings(auto_effects=(Effect.READ, Effect.WRITE))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENT_RUNTIME_SERVER_PORT", "AGENT_RUNTIME_SERVER__PORT"),
        ("AGENT_RUNTIME_PORT", "AGENT_RUNTIME_SERVER__PORT"),
        ("AGENT_RUNTIME_LOG__LEVL", "AGENT_RUNTIME_LOG__LEVEL"),
        ("agent_runtime_data_dir", "AGENT_RUNTIME_DATA_DIR"),
        ("AGENT_RUNTIME_CONFG", "AGENT_RUNTIME_CONFIG"),
    ],
)
def test_a_near_miss_among_the_variables_is_warned_of(name: str, meant: str) -> None:
    (warning,) = load_settings(environ={name: "1"}).config_warnings
    assert warning == f"The environment variable {name} has no meaning and was ignored; did you mean {meant}?"


def test_variables_that_mean_something_else_are_ignored_in_silence() -> None:
    environ = {
        "AGENT_RUNTIME_FLAVOUR": "blue",
        "AGENT_RUNTIME_SERVICE_HOST": "10.0.0.1",
        "AGENT_RUNTIME_PORT": "tcp://10.0.0.1:8000",
        "AGENT_RUNTIME_PORT_8000_TCP_PORT": "8000",
        "HOME": "/",
    }
    assert load_settings(environ=environ).config_warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {prot: 1}", "server.prot: unknown key; did you mean 'port'?"),
        ("sever: {port: 1}", "sever: unknown key; did you mean 'server'?"),
        ("port: 1", "port: unknown key; did you mean 'server.port'?"),
        ("cleaning: {days: 1}", "cleaning: unknown key; expected approval, auth, data_dir, limits, log, openai,"),
        ("retention: {days: 1}", "retention.days: unknown key; expected cancelled_s, completed_s, expired_s,"),
        ("config_warnings: [a]", "config_warnings: unknown key"),
        ("storage: {folder: a}", "storage.folder: unknown key"),
        ("1: 2", "1: unknown key"),
        ("server: {port: high}", "server.port: must be a whole number."),
        ("server: {port: 70000}", "server.port: must be at most 65535."),
        ("server: {host: 1}", "server.host: must be text (in quotes"),
        ("server: {allowed_hosts: a}", "server.allowed_hosts: must be a list."),
        ("server: {allowed_hosts: [1]}", "server.allowed_hosts[0]: must be text"),
        ("server: 5", "server: must be a mapping of keys to values."),
        ("- server", "must be a mapping of keys to values."),
        ("log: {format: xml}", "log.format: must be 'auto', 'json' or 'console'."),
        ("limits: {keep_alive_s: .inf}", "limits.keep_alive_s: must be a finite number."),
        ("limits: {prompt_bytes: 0}", "limits.prompt_bytes: must be greater than 0."),
        ("approval: {require_digest: often}", "approval.require_digest: must be true or false."),
        ("approval: {auto_effects: [all]}", "approval.auto_effects[0]: must be 'read', 'write', 'destructive' or"),
        ("approval: {deny: x}", "approval.deny: must be a list."),
        ("approval: {deny: [{sever: x}]}", "approval.deny[0].sever: unknown key; did you mean 'server'?"),
        ("approval: {deny: [{}, {tool: 1}]}", "approval.deny[1].tool: must be text (in quotes"),
        (
            "approval: {deny: [{arguments: {1: x}}]}",
            "approval.deny[0].arguments[1]: must be text as a key (in quotes).",
        ),
        ("approval: {deny: [{arguments: {'': x}}]}", "must be the name of an argument, or names with dots"),
        ("approval: {deny: [{tool: '${env:hunter22}'}]}", "approval.deny[0].tool: is compared literally"),
        ("deny: []", "deny: unknown key; did you mean 'approval.deny'?"),
        ("runner: procrastinate", "runner: must be 'auto' or 'local' on SQLite; 'procrastinate' needs storage.url"),
        ("runner: temporal", "runner: must be 'auto', 'local' or 'procrastinate'."),
        ("role: worker", "role: must be 'all', because one process does everything here"),
        (
            "storage: {url: 'mysql://u:hunter22@h/d'}",
            "storage.url: 'mysql' is not supported; use sqlite:///PATH or postgres",
        ),
        (
            "storage: {url: 'data.db'}",
            "storage.url: must be a URL like sqlite:///PATH or postgresql://USER@HOST/DATABASE.",
        ),
        ("storage: {url: 'sqlite:///:memory:'}", "storage.url: must be sqlite:///PATH"),
        ("storage: {url: 'sqlite://x'}", "storage.url: must be sqlite:///PATH"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_is_expected(text: str, said: str) -> None:
    message = refusal(text)
    assert message.startswith(f"{Path.cwd() / 'config.yaml'}: ")
    assert said in message
    assert "hunter22" not in message


def test_every_mistake_is_named_at_once_with_who_made_it() -> None:
    lines = refusal("server: {prot: 1}\nlog: {format: xml}", {"AGENT_RUNTIME_SERVER__PORT": "x"}).splitlines()
    assert len(lines) == 3
    assert "AGENT_RUNTIME_SERVER__PORT: server.port: must be a whole number." in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {port: 1, port: 2}", "line 1, column 19: is not valid YAML: the key 'port' twice"),
        ("log: {}\nserver: {port: 1\nlog: x", "line 3, column 4: is not valid YAML"),
        ("a: !!python/object:os.system {}", "line 1, column 4: is not valid YAML: could not determine a constructor"),
        ("a: 2026-13-45", "is not valid YAML: month must be in 1..12"),
        ("a: \x01", "is not valid YAML: special characters are not allowed"),
        ("[" * 3000, "is not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_file_of_aliases_that_stand_for_billions_of_items_is_refused_at_once() -> None:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    text = "\n".join(["a0: &a0 [x, x, x]", *rows, "server: {allowed_hosts: *a11}"])
    started = time.process_time()
    assert "has more than 100000 keys and list items" in refusal(text)
    assert "has more than 100000 keys and list items" in refusal("server: {allowed_hosts: &again [*again]}")
    assert time.process_time() - started < 4


def test_a_file_that_is_not_utf_8_or_is_a_folder_is_refused(home: Path) -> None:
    file = home / "config.yaml"
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigurationError, match="is not valid YAML"):
        load_settings(environ={})
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match=r"config\.yaml: cannot be read"):
        load_settings(environ={})


@pytest.mark.parametrize("text", ["", "# nothing\n", "server:\n  # port: 1\n", "\ufeffserver: {}\n"])
def test_an_empty_file_or_section_is_fine(text: str) -> None:
    assert load_settings(write(text), environ={}).server.port == 8000


def test_a_secret_is_read_and_redacted_from_then_on(home: Path) -> None:
    key_file = home / "key"
    key_file.write_text("sk-from-file\n")
    file = write(f"openai: {{api_key: '${{file:{key_file}}}', base_url: 'http://${{env:HOST_NAME}}/v1'}}")
    secrets = Secrets(environ={"HOST_NAME": "models.example"})
    settings = load_settings(file, environ={}, secrets=secrets)
    assert settings.openai.api_key is not None
    assert settings.openai.api_key.get_secret_value() == "sk-from-file"
    assert settings.openai.base_url == "http://models.example/v1"
    assert secrets.redactor.redact("key sk-from-file") == "key [redacted]"
    assert "sk-from-file" not in repr(settings)


@pytest.mark.parametrize("content", [b"sk-1", b"sk-1\n", b"sk-1\r\n", b"\xef\xbb\xbfsk-1\r\n"])
def test_a_secret_file_of_any_editor_holds_the_secret_alone(home: Path, content: bytes) -> None:
    file = home / "secret"
    file.write_bytes(content)
    assert Secrets(environ={}).expand(f"Bearer ${{file:{file}}}") == "Bearer sk-1"


def test_the_notation_of_other_programs_in_the_file_is_warned_about_with_what_to_write() -> None:
    text = "openai: {api_key: '${OPENAI_API_KEY}'}\nserver: {allowed_hosts: [localhost, '${HOST_NAME:-me}']}\n"
    secrets = Secrets(environ={})
    settings = load_settings(write(text), environ={}, secrets=secrets)
    first, second = settings.config_warnings
    assert f"{Path.cwd() / 'config.yaml'}: openai.api_key: ${{OPENAI_API_KEY}} is not replaced" in first
    assert first.endswith("write ${env:OPENAI_API_KEY}.")
    assert "server.allowed_hosts: ${HOST_NAME:-me} is not replaced" in second
    assert secrets.redactor.redact_message(first) == first


def test_a_key_from_the_environment_is_redacted_too() -> None:
    secrets = Secrets()
    load_settings(environ={"OPENAI_API_KEY": "sk-plain-key"}, secrets=secrets)
    assert secrets.redactor.redact("sk-plain-key") == "[redacted]"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("${env:NOWHERE}", "openai.api_key: The environment variable NOWHERE is not set."),
        ("${file:/no/such}", "openai.api_key: The secret file /no/such cannot be read"),
        ("${file:relative}", "openai.api_key: The secret file relative must be named by its absolute path."),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_with_its_field(reference: str, said: str) -> None:
    assert said in refusal(f"openai: {{api_key: '{reference}'}}")


def test_a_secret_that_is_overridden_need_not_be_there() -> None:
    file = write("openai: {api_key: '${env:NOWHERE}'}")
    assert load_settings(file, environ={"OPENAI_API_KEY": "sk-other"}).openai.configured


def test_a_path_starts_from_the_file_that_holds_it_or_else_from_the_working_directory(home: Path) -> None:
    file = write("data_dir: d\ntool_registry: ../r.yaml\nstorage: {url: 'sqlite:///x/j.db'}", "etc/config.yaml")
    settings = load_settings(file, environ={})
    assert settings.data_dir == home / "etc" / "d"
    assert settings.tool_registry == home / "etc" / ".." / "r.yaml"
    assert settings.storage.database_path == home / "etc" / "x" / "j.db"
    settings = load_settings(file, environ={"AGENT_RUNTIME_DATA_DIR": "e", "AGENT_RUNTIME_TOOL_REGISTRY": "/r.yaml"})
    assert (settings.data_dir, settings.tool_registry) == (home / "e", Path("/r.yaml"))
    elsewhere = load_settings(write("storage: {url: 'sqlite:////abs/j.db'}"), environ={})
    assert elsewhere.storage.database_path == Path("/abs/j.db")


def test_a_registry_beside_the_file_is_the_default(home: Path) -> None:
    file = write("", "etc/config.yaml")
    assert load_settings(file, environ={}).tool_registry == home / "tool_registry.yaml"
    beside = write("", "etc/tool_registry.yaml")
    assert load_settings(file, environ={}).tool_registry == beside


@pytest.mark.parametrize(
    ("host", "off"),
    [
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("::1", False),
        ("[::1]", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104 - nothing listens
        ("::", True),
        ("", True),
        ("runtime.example", True),
        ("192.168.1.2", True),
    ],
)
def test_off_loopback_is_whatever_others_might_reach(host: str, *, off: bool) -> None:
    assert load_settings(overrides={"server.host": host}, environ={}).off_loopback is off


def test_the_shipped_file_is_valid_and_says_the_defaults() -> None:
    settings = load_settings(SAMPLE, environ={})
    placed = {"data_dir", "tool_registry", "config_file", "openai"}
    assert settings.model_dump(exclude=placed) == Settings().model_dump(exclude=placed)
    assert settings.openai.model_dump(exclude={"api_key"}) == Settings().openai.model_dump(exclude={"api_key"})
    assert not settings.openai.configured
    assert settings.config_warnings == ()


def test_the_shipped_file_names_every_setting() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    sections = {name: value for name, value in Settings().model_dump().items() if isinstance(value, dict)}
    named = set(yaml.safe_load(text)["limits"])
    assert named == set(LimitSettings.model_fields)
    for key in itertools.chain(sections, *sections.values(), ("planner", "runner", "data_dir", "tool_registry")):
        assert f"{key}:" in text, key


@pytest.mark.parametrize(
    ("base_url", "chosen"),
    [
        (None, ("responses", "gpt-5-mini", 60)),
        ("", ("responses", "gpt-5-mini", 60)),
        ("https://api.openai.com/v1", ("responses", "gpt-5-mini", 60)),
        ("https://eu.api.openai.com/v1", ("responses", "gpt-5-mini", 60)),
        ("https://us.openai.azure.com/openai/v1/?api-version=preview", ("responses", "gpt-5-mini", 60)),
        ("http://127.0.0.1:11434/v1", ("chat_completions", "", 300)),
        ("https://openrouter.ai/api/v1", ("chat_completions", "", 300)),
        ("https://api.openai.com.evil.example/v1", ("chat_completions", "", 300)),
    ],
)
def test_the_api_the_model_and_the_patience_suit_the_endpoint(
    base_url: str | None, chosen: tuple[str, str, float]
) -> None:
    found = OpenAISettings(base_url=base_url)
    assert (found.api, found.model, found.timeout_s) == chosen
    given = OpenAISettings(base_url=base_url, api="responses", model="m", timeout_s=7)
    assert (given.api, given.model, given.timeout_s) == ("responses", "m", 7)


def test_extra_fields_of_a_request_are_read_from_the_file_or_from_a_variable_as_json(home: Path) -> None:
    (home / "seed").write_text("seven-and-more")
    file = write(f"openai: {{extra_body: {{seed: 7, options: {{name: ['${{file:{home / 'seed'}}}']}}}}}}")
    expected = {"seed": 7, "options": {"name": ["seven-and-more"]}}
    assert load_settings(file, environ={}).openai.extra_body == expected
    environ = {"AGENT_RUNTIME_OPENAI__EXTRA_BODY": json.dumps(expected)}
    assert load_settings(write(""), environ=environ).openai.extra_body == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{model: other}", "openai.extra_body: must not hold 'model': a plan is approved with one model"),
        ("{messages: []}", "must not hold 'messages': the service writes it"),
        ("{tools: [], stream: false}", "must not hold 'tools': the model gets the tools of the plan"),
        ("{tools: [], stream: false}", "must not hold 'stream': set openai.stream"),
        ("{temperature: 1}", "set openai.temperature"),
        ("{max_tokens: 1}", "must not hold 'max_tokens'"),
        ("{response_format: {}}", "must not hold 'response_format'"),
        ("{store: true}", "must not hold 'store'"),
        ("[a]", "openai.extra_body: must be a mapping of keys to values"),
        ("text", "openai.extra_body: must be a mapping of keys to values"),
        ("{a: .nan}", "must be a finite number"),
        ("{a: 2026-01-01}", "openai.extra_body"),
    ],
)
def test_extra_fields_change_nothing_that_the_service_decides(body: str, said: str) -> None:
    assert said in refusal(f"openai: {{extra_body: {body}}}")


@pytest.mark.parametrize("value", ["-0.1", "2.1", "hot"])
def test_a_temperature_is_between_0_and_2(value: str) -> None:
    assert "openai.temperature: must be" in refusal(f"openai: {{temperature: {value}}}")


def test_denials_are_read_from_the_file_or_from_a_variable_as_json() -> None:
    denial = {"server": "mail", "tool": "send*", "arguments": {"to": "*@rival.example"}, "reason": "not to them"}
    expected = (ServerDenial.model_validate(denial),)
    assert load_settings(write(yaml.safe_dump({"approval": {"deny": [denial]}})), environ={}).approval.deny == expected
    environ = {"AGENT_RUNTIME_APPROVAL__DENY": json.dumps([denial])}
    assert load_settings(write(""), environ=environ).approval.deny == expected
    with pytest.raises(
        ConfigurationError, match=r"^AGENT_RUNTIME_APPROVAL__DENY: approval\.deny\[0\]: must be a mapping"
    ):
        load_settings(write(""), environ={"AGENT_RUNTIME_APPROVAL__DENY": "send*"})


def test_settings_made_by_hand_are_checked_and_frozen() -> None:
    with pytest.raises(ValidationError, match="'rules' or module:attribute"):
        Settings(planner="none")
    with pytest.raises(ValidationError, match="frozen"):
        Settings().runner = "local"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        (None, "https://api.openai.com/v1"),
        ("", "https://api.openai.com/v1"),
        ("http://localhost:11434/v1/", "http://localhost:11434/v1"),
        ("https://user:pass@models.example/v1?key=hush#top", "https://models.example/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
    ],
)
def test_a_model_endpoint_is_shown_without_credentials(base_url: str | None, shown: str) -> None:
    assert OpenAISettings(base_url=base_url).endpoint == shown


@pytest.mark.parametrize(
    "base_url", ["localhost:11434/v1", "ftp://host/v1", "http://", "http://h:99999/v1", "http://[::1"]
)
def test_a_base_url_that_is_no_http_url_is_refused_without_showing_it(base_url: str) -> None:
    said = refusal(f"openai: {{base_url: '{base_url}'}}")
    assert "openai.base_url: must be a URL like http://localhost:11434/v1" in said
    assert base_url not in said.replace("http://localhost:11434/v1", "")


@pytest.mark.parametrize(("given", "sent"), [("sk-right\n", "sk-right"), ("  k ", "k")])
def test_the_space_around_a_key_is_not_part_of_it(given: str, sent: str) -> None:
    key = OpenAISettings(api_key=SecretStr(given)).api_key
    assert key
    assert key.get_secret_value() == sent


@pytest.mark.parametrize("key", ["cl\u00e9-hunter22", "hunter22\nhunter22"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII") as refused:
        OpenAISettings(api_key=SecretStr(key))
    assert "hunter22" not in str(refused.value)
