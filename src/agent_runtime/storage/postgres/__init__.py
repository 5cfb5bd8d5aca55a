"""The task store in a PostgreSQL database. `store.py` is the store, `writer.py` its one thread that writes.

Only this package imports the driver, and it is imported only where `storage.url` names PostgreSQL.
"""
