"""The four components of the service (task manager, orchestrator, agent service, tool registry) and their needs."""
