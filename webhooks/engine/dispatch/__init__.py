"""Events become deliveries.

loop        takes a batch, matches and renders it, and makes its deliveries, due at once
claim       which events go next
matching    who asked for them, and do conditions let them pass?
render      renders events; expansions: related objects as well
components  a change of a device's component is a change of the device as well
"""
