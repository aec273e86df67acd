"""Separation without Kafka."""
