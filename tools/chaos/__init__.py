"""A load of tasks under faults, and the audit that follows: `python scripts/chaos.py`."""
