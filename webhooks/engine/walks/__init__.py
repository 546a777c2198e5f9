"""Walks over objects in slices, while a dispatcher has nothing to dispatch.

loop: the walk itself: it takes turns, rests, and halves its slices after an interruption.
backfills: sends the objects of a webhook in their current state.
lists: sends the differences between a list that a webhook subscribes to and its receiver's copy.
config_contexts: reports objects whose config context changed because another object changed.
"""
