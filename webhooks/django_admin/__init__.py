"""Django's admin, as a site of our own inside NetBox."""
