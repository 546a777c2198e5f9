"""Django's admin inside NetBox: a site with our models, and django-rq's pages as the status page.

app, install, urlconf: put it into NetBox. site: who may enter, and its first page.
webhook, credential, delivery, event: pages of our models. base, read_only, display: what these share.
forms, custom_fields: the form of a webhook. preview, replay: pages of their own. filters: beside lists.
failed_jobs, rq_errors: django-rq's pages. causes: failed deliveries by cause, as a part of pages.
"""
