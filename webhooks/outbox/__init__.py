"""Writes the events of a change in the transaction of the change, and wakes a worker after the commit."""
