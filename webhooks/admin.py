"""Registers our models with Django's admin, which looks for this module. Its pages are in django_admin/."""

from django.contrib import admin

from .django_admin.delivery import DeliveryAdmin
from .django_admin.webhook import WebhookAdmin
from .models import Delivery, Webhook

admin.site.register(Webhook, WebhookAdmin)
admin.site.register(Delivery, DeliveryAdmin)
