"""Events become deliveries.

loop        what is recorded is taken, matched and rendered; its deliveries are made, due at once
claim       which events go next
render      what events tell is rendered
components  a change of what belongs to a device is one of the device as well
"""
