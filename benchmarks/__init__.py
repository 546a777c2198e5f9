"""Measurements of the plugin beside NetBox's built-in webhooks, both in the same run and on the same servers.

sides      how the one and the other are subscribed, and where their requests go
saves      what they add to a save
sending    how fast one worker sends; fairness; memory and CPU
arrival    from the answer of the save to the arrival
storage    what a delivery leaves behind, and what a claim costs in a long queue
lists      pages of a long log beside NetBox's own list of devices
report     the table
"""
