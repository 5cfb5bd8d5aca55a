"""The grammar of the command line, and the function of each command."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from agent_runtime import __version__
from agent_runtime.domain.status import TaskStatus

_EXIT_CODES = (
    "Exit codes: 0 success (for a task: completed), 1 failed or cancelled, 2 wrong usage or configuration, "
    "3 a person is needed (approval or attention), 130 interrupted"
)
_WHERE = (
    "Without --server the command uses the service that owns the data directory. If none runs, it does the work in "
    "its own process."
)

_KEYS = (
    "Put the line into the file that auth.keys_file names; the service reads it at the next request. To revoke a key, "
    "remove its line. This command stores nothing."
)

_ID_HELP = "the id of the task, or its beginning if no other task begins so; `last` is the newest"

_AUDIT = (
    "Without --server the command reads the database itself, even while a service runs on it, and changes nothing. "
    "Journals are tamper-evident: a change is found unless the whole history was rewritten. To find that too, keep a "
    "head elsewhere (audit head)."
)
_MIGRATE = (
    "A service does the same when it starts. On PostgreSQL the command may run beside replicas of the version before; "
    "on SQLite no service may run on the database."
)
_MOVE = (
    "A URL is like storage.url: sqlite:///PATH or postgresql://USER@HOST/DATABASE. No service may run on either. The "
    "source is only read; do not start a service on it again, or unfinished tasks run twice. If the command was "
    "interrupted, run it again: it goes on. A journal that was changed is named and left out; exit code 1 if one is."
)
_IMPORT = (
    "The command shows what it would add and asks. Entries that exist stay as they are, and so do comments. Secrets "
    "become ${env:NAME}; the command lists the variables to set."
)
_COMPLETION = (
    'bash: eval "$(agent-runtime completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit; '
    "fish: agent-runtime completion fish > ~/.config/fish/completions/agent-runtime.fish"
)
_CHECKPOINT = (
    "The command verifies the commits first, and writes nothing if one is wrong. No service may run on the database."
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `options.command` is the function of the command. `serve` is the default."""
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words.insert(0, "serve")
    return build_parser().parse_args(words)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="agent-runtime",
        description="Turn a sentence into a plan of MCP tool calls, let a person approve it, and run exactly that.",
        epilog=f"The default command is serve. {_EXIT_CODES}.",
    )
    parser.add_argument("--version", action="version", version=f"agent-runtime {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _setup_commands(commands)
    _service_commands(commands)
    _task_commands(commands)
    _rerun_command(commands)
    _decisions(commands)
    _mcp(commands)
    _keys(commands)
    _audit(commands)
    _storage(commands)
    return parser


def _mcp(commands: "_Commands") -> None:
    mcp = commands.add_parser("mcp", help="hand work to the service from an MCP client")
    verbs = mcp.add_subparsers(title="commands", metavar="COMMAND", required=True)
    what = "be an MCP server on standard input and output, for clients that start their servers"
    serve = _add(verbs, "serve", "mcp:serve", what)
    _service(serve)
    serve.add_argument("--url", dest="server", type=_url, metavar="URL", help="the same as --server")
    _settings(serve, level="warning")


def _keys(commands: "_Commands") -> None:
    keys = commands.add_parser("keys", help="create API keys for a service that requires them")
    verbs = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = verbs.add_parser("new", help="create a key: print it once, and the line to store", epilog=_KEYS)
    new.set_defaults(command=_load_later("keys:new"))
    new.add_argument("name", metavar="NAME", help="the holder of the key; the actor in the journal")
    new.add_argument(
        "--scopes",
        type=_split_list,
        required=True,
        metavar="SCOPE,...",
        help="any of submit, approve, read, admin (all)",
    )
    new.add_argument("--json", action="store_true", help="print one JSON document: name, scopes, key, line")


def _audit(commands: "_Commands") -> None:
    audit = commands.add_parser("audit", help="check that journals are unchanged and that every call was approved")
    verbs = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)
    verify = verbs.add_parser("verify", help="list every fault; exit code 1 if there is one", epilog=_AUDIT)
    verify.set_defaults(command=_load_later("audit:verify"))
    what = verify.add_mutually_exclusive_group()
    what.add_argument("task_id", metavar="ID", nargs="?", help=f"one task (default: all): {_ID_HELP}")
    what.add_argument("--file", type=_path, metavar="EXPORT", help="check an export, without a service or a database")
    head_help = "check the commits against a head that `audit head` printed earlier, kept elsewhere"
    what.add_argument("--head", metavar="POSITION:HASH", help=head_help)
    _client(verify, "the number of tasks, records and calls, and every fault", level="error")
    export = _with_id(verbs.add_parser("export", help="print all that an audit of a task needs", epilog=_AUDIT))
    export.set_defaults(command=_load_later("audit:export"))
    _client(export, "the export; always JSON", level="error")
    head = verbs.add_parser("head", help="print the newest commit, which proves all earlier ones, to keep elsewhere")
    head.set_defaults(command=_load_later("audit:head"))
    checkpoint = verbs.add_parser(
        "checkpoint", help="write a commit that names the head of every journal, and print it", epilog=_CHECKPOINT
    )
    checkpoint.set_defaults(command=_load_later("audit:checkpoint"))
    checkpoint.add_argument("--drop", action="store_true", help="remove the earlier commits, which it replaces")
    for command in (head, checkpoint):
        command.add_argument("--json", action="store_true", help="print one JSON document: head, position, hash")
        _settings(command, level="error")


def _storage(commands: "_Commands") -> None:
    migrate = commands.add_parser(
        "migrate", help="bring the tables of the store up to date, and say what was done", epilog=_MIGRATE
    )
    migrate.set_defaults(command=_load_later("migrating:migrate"))
    migrate.add_argument("--check", action="store_true", help="only say what is missing; exit code 1 if something is")
    migrate.add_argument("--json", action="store_true", help="print one JSON document: store, schema, applied, missing")
    _settings(migrate, level="error")
    move = commands.add_parser("move", help="copy all tasks from one store to another", epilog=_MOVE)
    move.set_defaults(command=_load_later("moving:move"))
    move.add_argument("--from", dest="source", required=True, metavar="URL", help="the store that has the tasks")
    move.add_argument("--to", dest="target", required=True, metavar="URL", help="the store that gets them")
    move.add_argument("--json", action="store_true", help="print one JSON document: the numbers of tasks, and faults")
    _settings(move, level="error")


_Commands = Any
"""The result of `add_subparsers`, whose type argparse does not export."""


def _service_commands(commands: _Commands) -> None:
    serve = _add(commands, "serve", "serve:serve", "serve the API until SIGTERM or Ctrl-C (the default command)")
    serve.add_argument("--host", help="address to listen on (server.host)")
    serve.add_argument("--port", type=int, help="port to listen on; 0: any free one (server.port)")
    serve.add_argument(
        "--role",
        choices=("all", "api", "worker"),
        help="what this one of several replicas does (role): takes requests, runs tasks, or both",
    )
    _settings(serve, level=None)
    _tools(commands)
    reload = _add(commands, "reload", "commands:reload", "reload tool_registry.yaml in the running service")
    _client(reload, "the ids of the entries that were added, changed and removed", level="error")
    doctor = _add(
        commands, "doctor", "doctor:doctor", "check this machine and the configuration; exit code 1 if a check fails"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    _settings(doctor, level="error")


def _setup_commands(commands: _Commands) -> None:
    what = "write a tool registry, settings and a folder for files; overwrites nothing"
    init = commands.add_parser("init", help=what, description=what)
    init.set_defaults(command=_load_later("registry_editing:init"))
    init.add_argument("folder", metavar="DIR", nargs="?", type=_path, default=Path(), help="where (default: here)")
    init.add_argument("--json", action="store_true", help="print one JSON document: made, kept")
    what = "print a script with which the shell completes commands and options"
    completion = commands.add_parser("completion", help=what, description=what, epilog=_COMPLETION)
    completion.set_defaults(command=_load_later("completion:show"))
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="your shell")


def _tools(commands: _Commands) -> None:
    what = "list the tools that plans may use, and unavailable tools with the reason"
    tools = _add(commands, "tools", "commands:tools", what)
    tools.add_argument("--refresh", action="store_true", help="ask every server again first")
    _client(tools, "the catalogue and the servers", level="error")
    verbs = tools.add_subparsers(title="commands", metavar="COMMAND")
    show = _add(verbs, "show", "calling:show_tool", "show what a tool does, its arguments, and how to call it")
    show_help = "the tool, as `tools` names it; SERVER alone lists the tools of a server"
    show.add_argument("tool", metavar="SERVER.TOOL", help=show_help)
    _client(show, "the tool, or the tools, as in the catalogue", level="error")
    added = verbs.add_parser(
        "import",
        help="add the servers of another MCP client to the registry",
        description="Add the servers of Claude Desktop, Cursor, VS Code and others to the registry.",
        epilog=_IMPORT,
    )
    added.set_defaults(command=_load_later("registry_editing:import_servers"))
    added.add_argument("file", metavar="FILE", help="the JSON file with mcpServers (or servers); - is standard input")
    added.add_argument("--yes", action="store_true", help="write without asking")
    added.add_argument(
        "--json", action="store_true", help="print one JSON document: entries, skipped, variables, written"
    )
    _settings(added, level="error")


def _task_commands(commands: _Commands) -> None:
    run = _add(commands, "run", "running:run", "submit a task, show its plan, ask, and follow it to its result")
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument("prompt", metavar="PROMPT", nargs="?", help="the task in words; - reads it from standard input")
    what.add_argument("--plan", metavar="FILE", help="run this plan, JSON or YAML; - reads it from standard input")
    run.add_argument("--yes", action="store_true", help="approve the plan without asking")
    _client(run)
    call = _add(
        commands, "call", "calling:call", "call one tool: a plan with one step, shown and approved like any other"
    )
    call.add_argument("tool", metavar="SERVER.TOOL", help="the tool, as `tools` names it")
    value_help = "an argument, typed by the schema of the tool; NAME:=JSON gives its value as JSON"
    call.add_argument("arguments", metavar="NAME=VALUE", nargs="*", help=value_help)
    call.add_argument("--yes", action="store_true", help="approve the plan without asking")
    _client(call, level="error")
    tasks = _add(commands, "tasks", "commands:tasks", "list the tasks, newest first")
    statuses = [status.value for status in TaskStatus]
    status_help = f"list only tasks of this status: {', '.join(statuses)}"
    tasks.add_argument("--status", choices=statuses, metavar="STATUS", help=status_help)
    tasks.add_argument(
        "--limit", type=int, default=20, help="the maximum number of tasks, 1 to 200 (default: %(default)s)"
    )
    _client(tasks, "the page of tasks", level="error")
    _client(
        _with_id(_add(commands, "show", "commands:show", "show one task: its plan, its steps, its result")),
        level="error",
    )
    plan = _add(commands, "plan", "editing:show", "print the plan of a task as YAML, to edit and put back with `edit`")
    _client(_with_id(plan), "the plan with all that its digest covers", level="error")
    planning = _add(
        commands, "planning", "planning:show_attempts", "show what a language model was asked for the plans of a task"
    )
    _client(_with_id(planning), "the attempts", level="error")
    _client(_with_id(_add(commands, "watch", "commands:watch", "follow a task until it ends or needs a person")))


def _rerun_command(commands: _Commands) -> None:
    rerun = _with_id(_add(commands, "rerun", "commands:rerun", "run a finished task again, and show its plan"))
    rerun.add_argument(
        "--from-failed-step", action="store_true", help="reuse the results of the steps that were completed"
    )
    _client(rerun)


def _decisions(commands: _Commands) -> None:
    approve = _with_id(_add(commands, "approve", "commands:approve", "approve the plan of a task, which then runs"))
    approve.add_argument(
        "--digest",
        help="the digest of the plan that you read; required once another was asked for (default: that of revision 1)",
    )
    approve.add_argument("--comment", help="a comment, stored with the approval")
    approve.add_argument("--call", metavar="CALL_ID", help="approve this call of the task instead; see `show`")
    approve.add_argument(
        "--arguments",
        type=_json,
        metavar="JSON",
        help="with --call: an object; send the call with these arguments instead",
    )
    _client(approve)
    reject = _with_id(_add(commands, "reject", "commands:reject", "reject the plan of a task, which ends the task"))
    reject.add_argument("--reason", help="a reason, stored with the rejection")
    reject.add_argument("--call", metavar="CALL_ID", help="deny this call of the task instead of the plan")
    _client(reject, level="error")
    revise = _with_id(_add(commands, "revise", "commands:revise", "plan a task again, and show the new plan"))
    revise.add_argument("feedback", nargs="?", metavar="FEEDBACK", help="the changes, in words; asked for without it")
    _client(revise)
    edit = _with_id(_add(commands, "edit", "editing:edit", "replace the plan of a task by an edited one, and show it"))
    edit.add_argument("file", metavar="FILE", help="the plan, JSON or YAML; - reads standard input")
    _client(edit)
    cancel = _with_id(_add(commands, "cancel", "commands:cancel", "cancel a task"))
    cancel.add_argument("--reason", help="a reason, stored with the cancellation")
    _client(cancel)
    answer = _with_id(_add(commands, "answer", "commands:answer", "answer a question of an MCP server"))
    answer.add_argument("--question", required=True, metavar="ID", help="the id of the question, as `show` names it")
    how = answer.add_mutually_exclusive_group(required=True)
    how.add_argument("--content", type=_json, metavar="JSON", help="the answer: an object that fits the schema")
    how.add_argument("--decline", action="store_true", help="tell the server that you refuse to answer")
    how.add_argument("--dismiss", action="store_true", help="tell the server that you neither answered nor declined")
    _client(answer)
    resolve = _with_id(_add(commands, "resolve", "commands:resolve", "resolve a call of unknown outcome"))
    resolve.add_argument("--step", required=True, metavar="STEP", help="the id of the step")
    resolve.add_argument(
        "--as",
        dest="resolution",
        required=True,
        choices=("done", "retry", "skip", "fail"),
        help="done: it took effect; retry: send it again; skip: go on without it; fail: end the task",
    )
    resolve.add_argument("--output", type=_json, metavar="JSON", help="with 'done': the result of the call")
    resolve.add_argument("--comment", help="a comment, stored with the decision")
    _client(resolve)


def _add(commands: _Commands, name: str, target: str, help_text: str) -> argparse.ArgumentParser:
    epilog = None if target.startswith(("serve", "doctor")) else _WHERE
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text, epilog=epilog)
    parser.set_defaults(command=_load_later(target))
    return parser


def _load_later(target: str) -> Callable[[argparse.Namespace], int]:
    """Return the function of a command, which imports its module when it is called."""
    module, _, name = target.partition(":")

    def command(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"agent_runtime.cli.{module}"), name)(options)
        return code

    return command


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("task_id", metavar="ID", help=_ID_HELP)
    return parser


def _client(
    parser: argparse.ArgumentParser, document: str = "the final state of the task", *, level: str = "warning"
) -> None:
    parser.add_argument("--json", action="store_true", help=f"print one JSON document: {document}")
    _service(parser)
    _settings(parser, level=level)


def _service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", type=_url, metavar="URL", help="the URL of the service to use")
    key_help = "the file with the API key, if the service requires one (default: AGENT_RUNTIME_API_KEY)"
    parser.add_argument("--key-file", type=_path, metavar="FILE", help=key_help)


def _settings(parser: argparse.ArgumentParser, *, level: str | None) -> None:
    parser.add_argument("--config", type=_path, metavar="FILE", help="config.yaml (AGENT_RUNTIME_CONFIG)")
    parser.add_argument("--registry", type=_path, metavar="FILE", help="tool_registry.yaml (tool_registry)")
    parser.add_argument("--data-dir", type=_path, metavar="DIR", help="the directory of the tasks (data_dir)")
    levels = ("debug", "info", "warning", "error")
    default = f"default: {level}" if level else "log.level"
    parser.add_argument("--log-level", choices=levels, default=level, help=f"the lowest level to log ({default})")


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL: it must start with http:// or https://")
    return text.rstrip("/")


def _path(text: str) -> Path:
    if not text:  # from an unset variable; Path("") would be the working directory
        raise argparse.ArgumentTypeError("it is empty: name a path")
    return Path(text)


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        example = "'\"text\"'" if sys.platform != "win32" else '"text"'
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error}); a text is written {example}") from error
