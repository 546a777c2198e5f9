"""A change becomes an event: a row written in the transaction that made the change.

In: what signals say. Out: an Event, and after the commit a wake-up for the workers.
"""
