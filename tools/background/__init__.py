"""Processes in the background of this machine."""
