"""Events become deliveries.

loop        takes a batch, matches and renders it, and makes due deliveries
claim       which events go next
matching    which webhooks asked for an event
render      renders events; expansions: related objects too
components  a change of a component is a change of its device too
"""
