"""Events become deliveries, and deliveries become attempts: see docs/architecture.md.

process/ runs the processes of a worker, dispatch/ makes deliveries, deliver/ sends them, tidy/ keeps the log bounded.

backfill       records all present objects
registry       who is alive, with which work in hand
rescue         frees a dead worker's work
transactions   transactions with bounds      sql
each           a bad item stops no other, and not too many are in memory
notifications  people are notified
time_limit     work that takes too long is ended
"""
