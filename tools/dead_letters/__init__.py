"""Dead letters: reading, showing and redriving them."""
