"""The planner that asks a language model: its prompt, and the reading of the answer."""
