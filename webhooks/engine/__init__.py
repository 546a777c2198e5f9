"""Events become deliveries, and deliveries become attempts.

In: a wake-up. Out: rows in PostgreSQL that say what was sent and what comes next.

runner           one job, from its first look to its end: the way through all of these
lanes            who waits for whom: one lock a webhook
event_claims     events are held by a lease
dispatch         events become deliveries          matching  conditions  event_rendering  batching
claims           deliveries are held by a lease    rate_limit  job_time
ordering         one object's deliveries go out one after the other
building         claimed ones get their requests   claimed
senders          threads that make the requests
outcomes         what came of it is recorded       verdict  backoff  ledger  circuit_breaker  notifications  gone
rescue  expiry   what a dead worker held; what waited too long
quarantine       what a dead worker held is tried in a process of its own       blame  death
purge retention  the log of a deleted webhook; what is old
memory           how much of all this is held at a time
timer  sidecar  standby  warmup                    beside the worker
"""
