"""The version of the pipeline; CHANGELOG.md is held to it by tests/test_documentation.py."""

VERSION = "0.1.0"
