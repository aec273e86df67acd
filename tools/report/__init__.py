"""The page about a task: pictures, players, the receipt in words."""
