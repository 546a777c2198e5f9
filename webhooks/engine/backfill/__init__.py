"""A backfill sends a webhook all present objects.

loop    records slice after slice
filter  finds the next objects, in bounded time
"""
