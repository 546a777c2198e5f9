"""Registers our models with Django's admin, which looks for this module. Its pages are in django_admin/.

The admin may be another plugin's: with our setting `admin` off, nothing is registered.
"""

from django.contrib import admin

from . import conf
from .django_admin.delivery import DeliveryAdmin
from .django_admin.webhook import WebhookAdmin
from .models import Delivery, Webhook

if conf.get().admin:
    admin.site.register(Webhook, WebhookAdmin)
    admin.site.register(Delivery, DeliveryAdmin)
