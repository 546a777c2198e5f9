"""Is a webhook's definition sound? One subject a file.

In: an object with the fields of a webhook. Out: errors by field. Knows nothing of the database.
"""
