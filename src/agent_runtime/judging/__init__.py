"""Judges the schemas of servers in a process of its own, where they can neither stall nor crash the service (G9)."""

SCHEMA_SECONDS = 2.0
"""The most CPU time for one schema."""

SLICE_SECONDS = 3.0
"""The CPU time after which the process ends, so that the schemas of another server get their turn."""

MEMORY_BYTES = 512 * 1024 * 1024
"""The address space of the process."""
