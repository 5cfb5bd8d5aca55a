"""Opaque identifiers that sort by the time they were made."""

import os
import time


def new_id(kind: str) -> str:
    """Return a new id such as `task_0193c2f5...`: a kind, milliseconds since 1970, and 80 random bits."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
