"""What happens just now and is written nowhere: for those who follow a task while it does."""
