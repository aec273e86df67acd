"""Tasks that failed: listing them, and sending them again."""
