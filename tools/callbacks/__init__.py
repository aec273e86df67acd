"""Callbacks, received and delivered again."""
