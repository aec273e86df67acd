"""Instances of both services in the background of one machine: kept running, scaled, drained, and
looked at.
"""
