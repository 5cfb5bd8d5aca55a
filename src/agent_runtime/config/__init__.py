"""What the operator says: settings (command line > environment > config.yaml > defaults), files and secrets."""

from agent_runtime.config.files import dotted, expectation, fault_at, parse_yaml, read_yaml, unknown_key
from agent_runtime.config.loading import load_settings
from agent_runtime.config.protection import close_on_exec, protect_process
from agent_runtime.config.secrets import Secrets, variables_in, without_references
from agent_runtime.config.settings import (
    OPENAI_URL,
    REGISTRY_VARIABLE,
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
    "OPENAI_URL",
    "REGISTRY_VARIABLE",
    "ApprovalSettings",
    "AuthSettings",
    "LimitSettings",
    "LogSettings",
    "OpenAISettings",
    "Secrets",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "close_on_exec",
    "dotted",
    "expectation",
    "fault_at",
    "load_settings",
    "parse_yaml",
    "protect_process",
    "read_yaml",
    "unknown_key",
    "variables_in",
    "without_references",
]
