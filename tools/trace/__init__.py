"""The timeline of a task, its state, and what to do next."""
