"""A user's template becomes text, and a user's condition an answer, in a process that can hurt nobody else.

In: a template or a condition, and the payload as JSON. Out: text, or an error with the line.
"""
