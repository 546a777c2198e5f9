"""Parts of our pages in NetBox.

In: webhooks, events and deliveries. Out: panels, charts, buttons and tabs.
"""
