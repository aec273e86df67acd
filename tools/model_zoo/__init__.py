"""Known models, and the folder of models."""
