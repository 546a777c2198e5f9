"""Events become deliveries, and deliveries become attempts.

In: a wake-up. Out: rows in PostgreSQL that say what was sent and what comes next.

runner           one job, from its first look to its end: the way through all of these          crew
lanes  sql       who waits for whom: one lock a webhook; how all of these ask PostgreSQL
event_claims     events are held by a lease
dispatch         events become deliveries          matching  components  conditions  batching
event_rendering  what events tell is rendered      expansions  time_limit
backfill         everything as it is now is recorded, a slice at a time                         finding  selection
claims           deliveries are held by a lease    rate_limit  job_time  share
ordering         one object's deliveries go out one after the other
superseding      of one object's waiting deliveries only the last goes out
building         claimed ones get their requests   claimed  definitions
senders          threads that make the requests
outcomes         what came of it is recorded       verdict  backoff  ledger  circuit_breaker  notifications  gone
rescue  expiry   what a dead worker held; what waited too long
quarantine       what a dead worker held is tried in a process of its own                       blame  death
purge            the log of a deleted webhook goes
retention        what is old in the log goes, and what is too much                              retention_size
memory           how much of all this is held at a time
timer  sidecar  standby  warmup                    beside the worker
shutdown         a worker is told to stop
"""
