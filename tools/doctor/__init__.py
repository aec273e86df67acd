"""What scripts/doctor.py looks at, one area a module; a check is a function that yields findings.

All findings, with what each means and what to do, are in catalogue.py; docs/doctor.md is held to
it.
"""
