from django.contrib.admin.apps import AdminConfig


class WebhooksAdminConfig(AdminConfig):
    default_site = 'webhooks.django_admin.site.WebhooksAdminSite'
