"""Tasks as people order them: what of, how their files are offered, how they end."""
