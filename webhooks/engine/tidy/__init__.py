"""The log stays bounded, and nothing waits for ever.

loop       a little of what is left: what has expired, of deleted webhooks, of canceled backfills, old counts
retention  the log is pruned, by number and by age
"""
