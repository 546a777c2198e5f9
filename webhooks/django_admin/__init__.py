"""Django's admin: a site of our own, mounted into NetBox, which comes without one.

In: requests below /admin/. Out: webhooks, deliveries and the status page, for superusers.
"""
