"""Turns events into deliveries.

loop: takes a batch, matches and renders it, and makes deliveries.
claim: takes the next events in hand.
matching: finds the webhooks that asked for an event.
undecided: evaluates costly conditions and filters of lists, each webhook in its turn.
memberships: decides whether an object enters or leaves a list.
render, expansions: render events and related objects.
put_off: events that are tried later.
changed_keys: compares keys before and after a change.
components: records updates of owners whose components change.
"""
