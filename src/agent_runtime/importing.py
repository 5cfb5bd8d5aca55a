"""Imports that take long happen when they are first needed, in threads, one at a time.

Two threads that import modules which need each other wait for each other for ever. Python notices, and has one of the
imports fail, or see half a module. The libraries of MCP and of the language model are such modules.
"""

from threading import RLock

one_import_at_a_time = RLock()
"""Hold this around an import in a thread."""
