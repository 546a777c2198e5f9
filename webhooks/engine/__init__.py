"""Events become deliveries, and deliveries become attempts. docs/architecture.md says how.

process/ starts and watches the processes of a worker, dispatch/ makes deliveries of events, deliver/ sends them,
backfill/ records everything as it is now, and tidy/ keeps the log bounded.

registry       who is alive, what each worker has in hand, and what becomes of that when one dies
transactions   transactions with bounds      sql
memory         how much of events and payloads is held at a time
notifications  people are told
shutdown  time_limit
"""
