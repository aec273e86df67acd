"""Dead letters, read and sent again."""
