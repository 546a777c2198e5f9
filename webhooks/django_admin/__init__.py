"""Django's admin, as a site of our own inside NetBox.

In: requests below /admin/. Out: pages for superusers.
"""
