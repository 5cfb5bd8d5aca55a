"""The states of front ends: one JSON document for each agent and thread, beside the journals of tasks."""
