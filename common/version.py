"""The version of the pipeline; a test compares CHANGELOG.md with it."""

VERSION = "0.1.0"
