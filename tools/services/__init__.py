"""Instances of both services in the background of one machine: start, scale, drain and watch them.

scripts/services.py writes the desired state; a supervisor process runs the instances and writes the
observed state.
"""
