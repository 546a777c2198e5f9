"""The app of our admin site. NetBox loads it with the plugin, unless the setting `admin` is off."""

from django.contrib.admin.apps import AdminConfig


class WebhooksAdminConfig(AdminConfig):
    """Puts our site behind `django.contrib.admin.site`."""

    default_site = 'webhooks.django_admin.site.WebhooksAdminSite'
