"""Engines that split a mixture into vocals and instrumental, and the child that runs them."""
