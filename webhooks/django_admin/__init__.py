"""Django's admin inside NetBox: a site with our models, and django-rq's pages as the status page.

It defines webhooks and credentials, and shows, searches and redelivers what the log has. NetBox's pages have the rest.

app, install, urlconf: put it into NetBox. site: who may enter.
webhook, credential, delivery, event: pages of our models. base, read_only, display: what these share.
forms: the form of a webhook. filters: beside lists. failed_jobs, rq_errors: django-rq's pages.
"""
