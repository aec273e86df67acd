"""A stream of test tasks through the running services, and its statistics."""
