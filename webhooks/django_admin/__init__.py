"""Django's admin inside NetBox: a site with our models, and django-rq's pages as the status page.

It defines webhooks and credentials, and shows, searches and redelivers what the log has. NetBox's pages have the rest.

app, install, urlconf: put it into NetBox. site: which users may enter.
webhook, credential, delivery, event: pages of our models. base, log, display: what these share.
forms: the form of a webhook. filters: beside lists. rq_errors: errors of django-rq's pages.
"""
