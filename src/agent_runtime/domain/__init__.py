"""Pure values and functions: what a task, a plan and an event are, and what may follow from them."""
