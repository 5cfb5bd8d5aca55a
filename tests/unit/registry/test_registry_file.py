"""tool_registry.yaml: its valid contents, and the messages about mistakes."""

from pathlib import Path

import pytest
import yaml

from agent_runtime.builtin.servers import SERVERS
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.tools import BuiltinServer, Denial, Effect, HttpServer, StdioServer, ToolServer
from agent_runtime.registry.file import load_registry

SHIPPED = Path(__file__).parents[3] / "tool_registry.yaml"

OLD = """
tool_registry:
  - id: "filesystem"
    enabled: true
    type: "local_stdio"
    config:
      command: "npx"
      args: ["@modelcontextprotocol/server-filesystem", "src/agent_runtime/sample_data"]

  - id: "fetch"
    enabled: true
    type: "local_stdio"
    config:
      command: "npx"
      args: ["@kazuph/mcp-fetch"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tool_registry.yaml"


def load(file: Path, text: str) -> tuple[ToolServer, ...]:
    file.write_text(text, encoding="utf-8")
    return load_registry(file, SERVERS)


def refusal(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(file, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


def entry(text: str) -> str:
    return f"tool_registry:\n  - {{{text}}}\n"


@pytest.mark.parametrize("off", ["off", "Off", "'off'", "false", "no"])
def test_a_sandbox_can_be_off_without_quotes(tmp_path: Path, off: str) -> None:
    (server,) = load(tmp_path / "r.yaml", entry(f"{STDIO}, sandbox: {{mode: {off}}}"))
    assert isinstance(server, StdioServer)
    assert server.sandbox.mode == "off"


def test_the_shipped_registry_offers_the_built_in_servers_and_fetch() -> None:
    servers = load_registry(SHIPPED, SERVERS)
    assert [server.id for server in servers] == ["filesystem", "calculator", "todo", "text", "fetch"]
    assert all(isinstance(server, BuiltinServer) and server.trust == "annotations" for server in servers[:4])
    assert all(server.enabled for server in servers)
    fetch = servers[4]
    assert isinstance(fetch, StdioServer)
    assert fetch.config.args == ("-y", "@kazuph/mcp-fetch@1.6.3")
    assert fetch.policy_for("imageFetch").effect is Effect.READ
    assert fetch.policy_for("imageFetch").open_world is True


def test_the_commented_examples_of_the_shipped_registry_are_valid(file: Path) -> None:
    examples = SHIPPED.read_text(encoding="utf-8").split("  # The same files through the npm server")[1]
    lines = [line.removeprefix("  # ") for line in examples.splitlines()[1:] if line.startswith(("  # - ", "  #   "))]
    npm, tickets = load(file, "tool_registry:\n" + "\n".join(lines))
    assert isinstance(npm, StdioServer)
    assert npm.config.args[1] == "@modelcontextprotocol/server-filesystem@2026.8.31"
    assert npm.policy_for("write_file").idempotent is True
    assert isinstance(tickets, HttpServer)
    assert tickets.policy_for("delete_ticket").approval == "call"
    assert tickets.deny == (
        Denial(tool="create_ticket", arguments={"project": "finance*"}, reason="finance files its own"),
    )


def test_a_registry_of_the_first_version_still_loads(file: Path) -> None:
    filesystem, fetch = load(file, OLD)
    assert isinstance(filesystem, StdioServer)
    assert filesystem.config.command == "npx"
    assert (filesystem.scope, filesystem.trust) == ("task", "none")
    assert fetch.id == "fetch"


def test_secrets_and_paths_stay_as_they_are_written(file: Path) -> None:
    (server,) = load(
        file,
        entry('id: a, type: remote_http, config: {base_url: "https://h", headers: {A: "Bearer ${env:NOWHERE}"}}'),
    )
    assert isinstance(server, HttpServer)
    assert server.config.headers == {"A": "Bearer ${env:NOWHERE}"}
    (files,) = load(file, entry("id: a, type: builtin, config: {server: filesystem, root: ./x}"))
    assert isinstance(files, BuiltinServer)
    assert files.config.root == "./x"


@pytest.mark.parametrize("text", ["tool_registry: []", "tool_registry:\n  # nothing yet\n"])
def test_an_empty_list_is_no_servers(file: Path, text: str) -> None:
    assert load(file, text) == ()


def test_a_missing_file_says_what_to_do(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="AGENT_RUNTIME_TOOL_REGISTRY") as caught:
        load_registry(file, SERVERS)
    assert str(caught.value).startswith(f"{file}: there is no such file. Create it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have the key 'tool_registry' at the top, with a list of servers."),
        ("[]", "must have the key 'tool_registry' at the top, with a list of servers."),
        ("tool_registry: {id: a}", "tool_registry: must be a list of servers, each beginning with '- id:'."),
        ("tool_registry: []\nservers: []", "servers: unknown key; expected tool_registry."),
        ("tool_registry: []\ntool_registri: []", "tool_registri: unknown key; did you mean 'tool_registry'?"),
        ("tool_registry: []\ntool_registry: []", "line 2, column 1: is not valid YAML: the key 'tool_registry' twice."),
        (
            "tool_registry: []\nmcpServers: {files: {command: npx}}",
            (
                "mcpServers: is how other clients list servers: here each is an item of the list 'tool_registry', with "
                "its name as id, a type (local_stdio or remote_http or builtin or python), and under config its "
                "command, args and env, or its base_url and headers."
            ),
        ),
        ("tool_registry: [5]", "tool_registry[0]: must be a mapping of keys to values."),
    ],
)
def test_a_mistake_around_the_list_is_named(file: Path, text: str, said: str) -> None:
    assert refusal(file, text) == [said]


STDIO = "id: a, type: local_stdio, config: {command: x}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: a", "entry 'a': type: is missing; expected local_stdio or remote_http or builtin or python."),
        ("id: a, type: stdio", "entry 'a': type: must be local_stdio or remote_http or builtin or python."),
        ("type: builtin, config: {server: todo}", "tool_registry[0]: id: is missing."),
        (
            "id: a b, type: builtin, config: {server: todo}",
            "entry 'a b': id: must start with a letter and hold at most",
        ),
        ("id: 7, type: builtin, config: {server: todo}", "tool_registry[0]: id: must be text"),
        (
            "id: a, type: builtin, config: {server: files}",
            "entry 'a': config.server: must be 'filesystem', 'calculator', 'todo' or 'text'.",
        ),
        ("id: a, type: builtin, config: {}", "entry 'a': config.server: is missing."),
        ("id: a, type: local_stdio", "entry 'a': config: is missing."),
        ("id: a, type: local_stdio, config: x", "entry 'a': config: must be a mapping of keys to values."),
        ("id: a, type: local_stdio, config: {command: ''}", "entry 'a': config.command: must not be empty."),
        ("id: a, type: local_stdio, config: {command: x, args: -y}", "entry 'a': config.args: must be a list."),
        (
            "id: a, type: local_stdio, config: {command: [npx, -y, x]}",
            "entry 'a': config.command: must be the name of the program alone; its arguments are the list config.args.",
        ),
        (
            "id: a, type: local_stdio, config: {command: x, args: [1]}",
            "entry 'a': config.args[0]: must be text (in quot",
        ),
        (
            "id: a, type: local_stdio, config: {command: x, env: {PORT: 1}}",
            "entry 'a': config.env.PORT: must be text (in quotes",
        ),
        (
            "id: a, type: local_stdio, config: {comand: x, command: y}",
            "entry 'a': config.comand: unknown key; did you mean 'command'?",
        ),
        ("id: a, type: remote_http, config: {base_url: 'h:1'}", "entry 'a': config.base_url: must begin with http://"),
        (
            "id: a, type: python, config: {object: 'my-tools:x'}",
            "entry 'a': config.object: must be module:object, or the name of a module",
        ),
        (f"{STDIO}, trusted: none", "entry 'a': trusted: unknown key; did you mean 'trust'?"),
        (f"{STDIO}, trust: all", "entry 'a': trust: must be 'none' or 'annotations'."),
        (f"{STDIO}, client_session_timeout_seconds: 0", "entry 'a': client_session_timeout_seconds: must be greater"),
        (f"{STDIO}, sandbox: {{mod: 'off'}}", "entry 'a': sandbox.mod: unknown key; did you mean 'mode'?"),
        (f"{STDIO}, sandbox: {{mode: on}}", "entry 'a': sandbox.mode: must be 'auto', 'off' or 'required'"),
        (f"{STDIO}, tools: {{w: {{efect: read}}}}", "entry 'a': tools.w.efect: unknown key; did you mean 'effect'?"),
        (f"{STDIO}, tools: {{w: {{effect: reads}}}}", "entry 'a': tools.w.effect: must be 'read', 'write', "),
        (
            f"{STDIO}, tools: {{w: {{timeout_s: 9, max_timeout_s: 5}}}}",
            "entry 'a': tools.w.max_timeout_s: must be at least timeout_s, ",
        ),
        (f"{STDIO}, tools: {{1: {{effect: read}}}}", "entry 'a': tools[1]: must be text as a key (in quotes)."),
        ("id: a, type: builtin, config: {server: todo}, scope: task", "entry 'a': scope: must be 'shared'."),
        (f"{STDIO}, deni: []", "entry 'a': deni: unknown key; did you mean 'deny'?"),
        (f"{STDIO}, deny: {{tool: x}}", "entry 'a': deny: must be a list."),
        (f"{STDIO}, deny: [x]", "entry 'a': deny[0]: must be a mapping of keys to values."),
        (f"{STDIO}, deny: [{{tools: x}}]", "entry 'a': deny[0].tools: unknown key; did you mean 'tool'?"),
        (
            f"{STDIO}, deny: [{{server: x}}]",
            "entry 'a': deny[0].server: unknown key; expected arguments, reason, tool.",
        ),
        (f"{STDIO}, deny: [{{tool: ''}}]", "entry 'a': deny[0].tool: must not be empty."),
        (f"{STDIO}, deny: [{{arguments: {{n: 5}}}}]", "entry 'a': deny[0].arguments.n: must be text (in quotes"),
        (
            f"{STDIO}, deny: [{{arguments: {{5: n}}}}]",
            "entry 'a': deny[0].arguments[5]: must be text as a key (in quotes",
        ),
        (
            f"{STDIO}, deny: [{{arguments: {{a..b: x}}}}]",
            "entry 'a': deny[0].arguments.a..b: must be the name of an argument, or names with dots between them",
        ),
        (
            f"{STDIO}, deny: [{{arguments: {{a: '${{env:X}}*'}}}}]",
            "entry 'a': deny[0].arguments.a: is compared literally, so nothing is replaced: write the text",
        ),
    ],
)
def test_a_mistake_in_an_entry_is_named_with_what_is_expected(file: Path, text: str, said: str) -> None:
    (line,) = refusal(file, entry(text))
    assert line.startswith(said)


def test_an_id_that_is_there_twice_is_refused(file: Path) -> None:
    line = "  - {id: a, type: builtin, config: {server: todo}}\n"
    (said,) = refusal(file, f"tool_registry:\n{line}{line}")
    assert said == "tool_registry[1]: id: 'a' is the id of tool_registry[0] too; ids must be unique."


def test_every_mistake_is_named_at_once(file: Path) -> None:
    document = {"servers": 1, "tool_registry": [{"id": "a"}, {"id": "a", "type": "builtin", "config": {"x": 1}}, None]}
    lines = refusal(file, yaml.safe_dump(document))
    assert len(lines) == 6
    assert all(line.endswith((".", "?")) for line in lines)


def test_a_secret_in_a_bad_entry_is_not_repeated(file: Path) -> None:
    (line,) = refusal(file, entry("id: a, type: remote_http, config: {base_url: hunter22}"))
    assert "hunter22" not in line


def test_a_built_in_server_is_known_by_the_names_that_there_are(file: Path) -> None:
    file.write_text(entry("id: a, type: builtin, config: {server: clock}"), encoding="utf-8")
    (server,) = load_registry(file, ["text", "clock"])
    assert isinstance(server, BuiltinServer)
    assert server.config.server == "clock"
    with pytest.raises(ConfigurationError, match=r"config\.server: must be 'text'\.$"):
        load_registry(file, ["text"])
