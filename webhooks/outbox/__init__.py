"""Writes events in the transaction of their change, and wakes a worker afterwards."""
