"""Events become deliveries, and deliveries become attempts.

In: a wake-up. Out: rows in PostgreSQL that say what was sent and what comes next. runner.py is the way through.
"""
