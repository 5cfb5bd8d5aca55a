"""Logs and metrics of the service for its operators.

The package imports only the logs. Import `telemetry.metrics` where needed; it takes longer to load.
"""

from agent_runtime.telemetry.logs import configure_logging, keep_logging, log_debug

__all__ = ["configure_logging", "keep_logging", "log_debug"]
