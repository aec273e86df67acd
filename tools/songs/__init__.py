"""Songs made from nothing, and names for their folders."""
