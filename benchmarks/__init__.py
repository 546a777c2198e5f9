"""Measurements beside NetBox's built-in webhooks, in the same run and on the same servers.

sides      subscriptions of both
saves      time added to a save
sending    a worker's speed, fairness, memory and CPU
arrival    from the save's answer to the arrival
storage    a delivery's rows and bytes, and claims in a long queue
lists      pages of a long log beside NetBox's devices
report     the table
"""
