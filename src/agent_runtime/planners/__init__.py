"""Planners: adapters of the `Planner` port. `rules` needs no model; `model` asks one."""
