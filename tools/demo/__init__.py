"""The whole pipeline on this machine, and what comes of a song."""
