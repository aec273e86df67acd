"""Synthesised songs, and names for songs' folders."""
