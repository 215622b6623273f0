"""Promises broken on purpose, to see that a test fails: `make mutants`."""
