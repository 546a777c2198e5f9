"""What NetBox's pages of ours are built of: panels, charts, buttons and tabs.

In: webhooks, events and deliveries. Out: what the views and templates show.
"""
