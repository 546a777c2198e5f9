"""A webhook is sent everything as it is now.

loop    slice after slice is recorded, as little as waits
filter  which objects are next, in no more time than others can wait
"""
