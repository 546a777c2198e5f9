"""The log stays bounded, and nothing waits for ever.

loop: expires deliveries, removes logs of deleted webhooks and canceled backfills, and tells event rules.
retention: prunes the log, by number and by age, and old counts.
certificates: tells of client certificates that end soon.
"""
