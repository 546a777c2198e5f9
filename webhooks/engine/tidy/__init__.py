"""Keeps the log bounded, and lets nothing wait for ever.

loop: expires deliveries, removes logs of deleted webhooks and canceled backfills, runs event rules, disables webhooks
    after 410, and releases what is no longer ordered.
retention: prunes the log, by number and by age, and old counts.
"""
