"""Text and reports of the moment, which are not stored, for those who follow a task."""
