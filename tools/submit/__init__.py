"""Submitting sources as tasks, and waiting for them."""
