"""`agent-runtime keys new`: create a key for a caller, and the line for the service."""

import argparse

from agent_runtime.api.keys import new_key
from agent_runtime.cli import output
from agent_runtime.domain.caller import SCOPES


def new(options: argparse.Namespace) -> int:
    """Print a new key, and the line to store. Raises: ConfigurationError for a bad name or scope."""
    text, key = new_key(options.name, options.scopes)
    if options.json:
        scopes = [scope for scope in SCOPES if scope in key.scopes]
        output.document({"name": key.name, "scopes": scopes, "key": text, "line": key.line})
        return 0
    output.say(f"The key of {key.name}, which is shown this once. Give it to nobody else:")
    output.result(text)
    output.say("The line to store in the file that auth.keys_file names:")
    output.result(key.line)
    return 0
