"""The log stays bounded, and nothing waits for ever.

loop: expires deliveries, and removes logs of deleted webhooks, canceled backfills and old counts.
retention: prunes the log, by number and by age.
certificates: tells of client certificates that end soon.
"""
