"""The caller as the journal records it: name, tenant and authentication method."""

from pydantic import Field
from typing_extensions import TypedDict

from agent_runtime.domain.values import Value

DEFAULT_TENANT = "default"
"""The tenant that always exists."""


class Signature(TypedDict):
    """The fields with which an event names the caller who caused it. `actor` is the caller's name."""

    actor: str
    tenant: str
    via: str | None


def _is_default(tenant: str) -> bool:
    return tenant == DEFAULT_TENANT


def _is_none(via: str | None) -> bool:
    return via is None


class SignedEvent(Value):
    """Fields shared by all events that a caller causes, in addition to `actor`.

    `tenant` is the caller's. `via` is how the caller was authenticated; None in journals of earlier versions.
    """

    tenant: str = Field(default=DEFAULT_TENANT, exclude_if=_is_default)
    via: str | None = Field(default=None, exclude_if=_is_none)
