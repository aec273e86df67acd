"""Engines that split a mixture into vocals and instrumental, and the child process that runs them."""
