"""What people ask for: redeliver, test, preview, import, rotate a secret, remove everything.

In: a call of a page, a command or the REST API. Out: what was done, or why not.
"""
