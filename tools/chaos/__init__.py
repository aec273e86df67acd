"""A load of tasks under faults, and an audit of every task: `python scripts/chaos.py`."""
