"""Measurements of the plugin beside NetBox's built-in webhooks, in the same run and on the same servers.

sides      subscriptions of both, and their endpoint
saves      time added to a save
sending    one worker's speed, fairness, memory and CPU
arrival    from the answer of the save to the arrival
storage    rows and bytes of a delivery, and claims in a long queue
lists      pages of a long log beside NetBox's list of devices
report     the table
"""
