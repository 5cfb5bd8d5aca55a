"""What the operator says: settings (command line > environment > config.yaml > defaults), files and secrets."""

from agent_runtime.config.files import dotted, expectation, fault_at, parse_yaml, read_yaml, unknown_key
from agent_runtime.config.loading import load_settings
from agent_runtime.config.secrets import Secrets
from agent_runtime.config.settings import (
    ApprovalSettings,
    AuthSettings,
    LimitSettings,
    LogSettings,
    OpenAISettings,
    ServerSettings,
    Settings,
    StorageSettings,
)

__all__ = [
    "ApprovalSettings",
    "AuthSettings",
    "LimitSettings",
    "LogSettings",
    "OpenAISettings",
    "Secrets",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "dotted",
    "expectation",
    "fault_at",
    "load_settings",
    "parse_yaml",
    "read_yaml",
    "unknown_key",
]
