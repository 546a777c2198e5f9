"""Processes to kill, servers to crash, and promises to keep."""
