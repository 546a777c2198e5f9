"""Installs Django's admin with our site as the default one."""

from django.contrib.admin.apps import AdminConfig


class WebhooksAdminConfig(AdminConfig):
    default_site = 'webhooks.django_admin.site.WebhooksAdminSite'
