"""A stream of tasks through running services, and what is measured of it."""
