"""A service that requires keys, and its callers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from agent_runtime.api.keys import new_key
from serving import Service

EACH_SCOPE = {scope: (scope,) for scope in ("submit", "approve", "read", "admin")}
"""One caller per scope, with the name of the scope."""


@dataclass
class KeyedService:
    """A service that requires keys. `keys` maps callers to keys; the client of the service itself has all scopes."""

    service: Service
    keys: dict[str, str]
    file: Path

    def call(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx2.Response:
        """Send a request with the key of this caller, with any other text as key, or without a key."""
        headers = {**more.pop("headers", {})}
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        with httpx2.Client(base_url=self.service.url, timeout=20) as client:
            return client.request(method, path, headers=headers, **more)


@contextmanager
def serve_with_keys(
    folder: Path, callers: Mapping[str, Sequence[str]] = EACH_SCOPE, **settings: Any
) -> Iterator[KeyedService]:
    """Run a service with one key per caller, with the given scopes."""
    made = {name: new_key(name, scopes) for name, scopes in callers.items()}
    text, operator = new_key("operator", ["admin"])
    file = folder / "keys"
    file.write_text("\n".join([*(key.line for _, key in made.values()), operator.line]))
    service = Service(folder, auth={"keys_file": file, **settings.pop("auth", {})}, **settings)
    service.client.headers["Authorization"] = f"Bearer {text}"
    with service:
        yield KeyedService(service, {name: text for name, (text, _) in made.items()}, file)
