"""Stores for tasks. Each adapter has the shape of `services.ports.TaskStore`; `owner` guards the data directory."""
