"""The model folder: known models, and where they come from."""
