"""The demo: the whole pipeline on this machine, with songs sent through it."""
