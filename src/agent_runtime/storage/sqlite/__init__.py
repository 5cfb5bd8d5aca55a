"""The task store of one process, in a SQLite file. `store.py` is the store, `writer.py` its one thread that writes."""
