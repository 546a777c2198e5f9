"""Processes to kill, servers to crash, and an audit of the promises that must survive."""
