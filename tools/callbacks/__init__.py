"""Receiving and replaying callbacks."""
