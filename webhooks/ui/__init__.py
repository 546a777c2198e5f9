"""Parts of NetBox's pages that are ours.

buttons: on the pages of webhooks and deliveries. list_button: above NetBox's lists of objects.
panels: cards. attributes: their rows.
history: the figures of a webhook's chart.
tabs: the tab on NetBox's objects.
"""
