"""What commands show: one status line, progress bars, tables."""
