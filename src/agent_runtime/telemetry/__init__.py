"""What the service tells of itself to those who run it: its log, and its measures.

Only the log is imported with the package; who measures asks for `telemetry.metrics`, which takes longer to load.
"""

from agent_runtime.telemetry.logs import configure_logging, log_debug

__all__ = ["configure_logging", "log_debug"]
