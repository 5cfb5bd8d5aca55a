"""The agent that front ends see: the service itself."""

AGENT_ID = "agent-runtime"
AGENT_DESCRIPTION = "Makes a plan of tool calls from a sentence, asks a person to approve it, and carries it out."

NAMES = ("default", AGENT_ID)
"""The names by which front ends may call the agent; those of CopilotKit use `default` where they are told none."""
