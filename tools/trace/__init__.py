"""The timeline of a task, and what to do next."""
