"""A read-only web service for operators: how the pipeline is, and where a task is."""
