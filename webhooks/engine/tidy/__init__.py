"""The log stays bounded, and nothing waits for ever.

loop       a little of what is left: of deleted webhooks, of canceled backfills, old counts
expiry     what could not be delivered in time fails
retention  the log is pruned, by number and by age
"""
