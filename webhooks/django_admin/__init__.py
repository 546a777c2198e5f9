"""Django's admin inside NetBox: a site with our models, and django-rq's pages as the status page."""
