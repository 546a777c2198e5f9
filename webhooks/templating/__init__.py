"""A user's template becomes text, with bounds on time and memory.

In: a template and the payload. Out: text, or an error with the line.
"""
