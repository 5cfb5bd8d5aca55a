"""The schemas of servers, judged in a process of their own: what they cost there stalls and kills nobody (G9)."""

SCHEMA_SECONDS = 2.0
"""The CPU time that one schema may take."""

SLICE_SECONDS = 3.0
"""The CPU time after which the process makes room for the schemas of another server."""

MEMORY_BYTES = 512 * 1024 * 1024
"""The address space of the process."""
