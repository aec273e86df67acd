"""The checks that CI runs: linters, the test suite and figures of the code."""
