"""The checks of scripts/doctor.py, one module per area; a check is a function of findings.

catalogue.py holds what each finding means and what to do; docs/doctor.md shows the same table.
"""
