"""The processes of this machine: those that the service started, and those that call it."""
