"""Turns events into deliveries, and deliveries into attempts: docs/architecture.md.

commands: what services may ask of it.
process: runs the processes of a worker.
dispatch: makes deliveries.
deliver: sends them.
tidy: keeps the log bounded.
walks: looks at objects in slices, for backfills, lists and config contexts.
registry: who is alive, with which work in hand; and after how many deaths of workers an item is a suspect, and fails.
rescue: frees a dead worker's work.
sql: opens short transactions, and runs their statements.
each: a bad item stops no other. It says when to look at everything, and how long to rest after a slow slice.
notifications: people and event rules hear of trouble.
"""
