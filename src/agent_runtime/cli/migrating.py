"""`agent-runtime migrate`: bring the tables of the store up to date, before a service of this version starts."""

import argparse
from contextlib import nullcontext

from agent_runtime.cli import output
from agent_runtime.cli.service import settings_of
from agent_runtime.storage.opening import read_schema, update_schema
from agent_runtime.storage.owner import own_storage
from agent_runtime.storage.schema import Schema


def migrate(options: argparse.Namespace) -> int:
    """Apply the missing migrations and list them; with --check only list them, and return 1 if there are any."""
    settings, _ = settings_of(options)
    storage = settings.storage
    found = read_schema(storage)
    if not found.missing or options.check:
        _show(storage.shown, found, (), as_json=options.json)
        return 1 if found.missing else 0
    # A PostgreSQL database may have running replicas; which migrations they bear is judged there.
    with nullcontext() if storage.on_postgresql else own_storage(settings):
        now = update_schema(storage)
    applied = tuple(script for script in found.missing if script not in now.missing)
    _show(storage.shown, now, applied, as_json=options.json)
    return 0


def _show(store: str, schema: Schema, applied: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        output.document({"store": store, "schema": schema.number, "applied": applied, "missing": schema.missing})
        return
    for script in applied or schema.missing:
        output.result(script)
    if applied:
        said = f"applied the migrations above; its schema is {schema.number}"
    elif schema.missing:
        said = f"the migrations above are missing; its schema is {schema.number}, this version needs {schema.known}"
    elif schema.is_newer:
        said = f"a newer version has made its tables (schema {schema.number}), and this version can work with them"
    else:
        said = f"its tables are up to date; its schema is {schema.number}"
    output.say(f"{store}: {said}.")
