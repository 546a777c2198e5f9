"""Measurements beside NetBox's built-in webhooks, in the same run and on the same servers.

sides      subscriptions of both
saves      time added to a save
sending    a worker's speed, fairness, memory and CPU
arrival    from the save's answer to the arrival
claims     looks at a long queue
capacity   what a change and a delivery cost, a long log, many webhooks; sizes.py computes needs from it
lists      pages of a long log beside NetBox's devices
report     the table
"""
