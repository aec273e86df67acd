"""Processes that go on in the background of this machine."""
