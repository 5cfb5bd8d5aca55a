"""Who turns a prompt into a plan: adapters of the `Planner` port. `rules` needs no model; `model` asks one."""
