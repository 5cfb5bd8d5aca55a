"""What the planner that asks a model needs: what it says to the model, and how it reads the answer."""
