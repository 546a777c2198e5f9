"""Events become deliveries, and deliveries become attempts.

In: a wake-up. Out: rows in PostgreSQL that say what was sent and what comes next.

runner           one job, from its first look to its end: the way through all of these
dispatch         events become deliveries          matching  conditions  event_rendering  batching
ordering         one object's deliveries go out one after the other
claims           deliveries are held by a lease    rate_limit
claimed          a claimed one gets its request
outcomes         what came of it is recorded       verdict  backoff  ledger  circuit_breaker  notifications
rescue  expiry   what a dead worker held; what waited too long
retention        what is old goes
locks  job_time  who waits for whom, and how long a job lasts
timer  standby  warmup                             beside the worker
"""
