"""The operator's configuration: settings (command line > environment > config.yaml > defaults), files and secrets."""

from agent_runtime.config.descriptors import fit_connections, raise_descriptor_limit
from agent_runtime.config.environment import CERTIFICATE_VARIABLES, NETWORK_VARIABLES, PACKAGE_VARIABLES, Proxies, Proxy
from agent_runtime.config.files import (
    describe_expectation,
    describe_fault,
    describe_unknown_key,
    format_place,
    parse_yaml,
    read_yaml,
)
from agent_runtime.config.limits import LimitSettings
from agent_runtime.config.loading import load_settings
from agent_runtime.config.new_process import before_exec, die_with_parent
from agent_runtime.config.placeholders import convert_placeholders, correct_placeholders, without_placeholders
from agent_runtime.config.protection import forget_secrets, protect_process
from agent_runtime.config.secrets import Secrets, variables_in, without_references
from agent_runtime.config.settings import (
    OPENAI_URL,
    REGISTRY_VARIABLE,
    ApprovalSettings,
    AuthSettings,
    LogSettings,
    OpenAISettings,
    ServerSettings,
    Settings,
    StorageSettings,
)

__all__ = [
    "CERTIFICATE_VARIABLES",
    "NETWORK_VARIABLES",
    "OPENAI_URL",
    "PACKAGE_VARIABLES",
    "REGISTRY_VARIABLE",
    "ApprovalSettings",
    "AuthSettings",
    "LimitSettings",
    "LogSettings",
    "OpenAISettings",
    "Proxies",
    "Proxy",
    "Secrets",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "before_exec",
    "convert_placeholders",
    "correct_placeholders",
    "describe_expectation",
    "describe_fault",
    "describe_unknown_key",
    "die_with_parent",
    "fit_connections",
    "forget_secrets",
    "format_place",
    "load_settings",
    "parse_yaml",
    "protect_process",
    "raise_descriptor_limit",
    "read_yaml",
    "variables_in",
    "without_placeholders",
    "without_references",
]
