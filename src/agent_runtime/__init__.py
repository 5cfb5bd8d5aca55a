"""Agent Runtime: a sentence becomes a plan of MCP tool calls, a person approves it, and exactly that runs."""

from importlib.metadata import version

__version__ = version("agent-runtime")
