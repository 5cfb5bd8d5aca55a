"""The components of the service (task manager, orchestrator, agent service, tool registry) and the ports they need."""
