"""The HTML report about a task: pictures, players, the receipt in words."""
