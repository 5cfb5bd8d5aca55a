"""The tool registry as the operator wrote it: read, checked, resolved, and what is known of the servers in it."""
