"""Turns events into deliveries, and deliveries into attempts: docs/architecture.md.

commands: the functions that services may call.
process: runs the processes of a worker.
dispatch: makes deliveries.
deliver: sends them.
tidy: keeps the log bounded.
walks: looks at objects in slices, for backfills, lists and config contexts.
registry: which workers are alive, with which work in hand; after how many deaths an item is a suspect, and fails.
rescue: frees a dead worker's work.
sql: opens short transactions, and runs their statements.
each: isolates bad items, and says when to read everything again and how long to rest after a slow slice.
notifications: notifies people and event rules of trouble.
"""
