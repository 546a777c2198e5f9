"""Helpers of all tests. Tests import them as `support.…`, and never from each other."""
