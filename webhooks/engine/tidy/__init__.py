"""Keeps the log bounded, and lets nothing wait for ever.

loop: expires deliveries, removes logs of deleted webhooks and canceled backfills, and runs event rules.
retention: prunes the log, by number and by age, and old counts.
"""
