"""The published schemas: what producers, receivers and tools may read instead of the code.

`documents` makes them from the models of `common`, `asyncapi` joins them to topics, keys and
headers, `examples` makes the examples with the same code as the services, and `files` is what
`scripts/schemas.py` writes and checks.
"""
