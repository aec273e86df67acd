"""Hostile media, built byte by byte: each file's name, its bytes, and the error that it must end
in.
"""
