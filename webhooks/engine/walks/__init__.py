"""Walks over objects in slices, while a dispatcher has nothing to dispatch.

loop: the walk itself: it takes turns, rests, and halves its slices after an interruption.
backfills: sends the objects of a webhook as they are.
lists: sends what differs between a list that a webhook subscribes to and what its receiver was told.
config_contexts: tells of objects that have another config context, because another object changed.
"""
