"""Registers our models with Django's admin, which imports this module.

Nothing is registered without the setting `admin`: the admin may then be another plugin's.
"""

from django.contrib import admin

from . import conf
from .django_admin.credential import CredentialAdmin
from .django_admin.delivery import DeliveryAdmin
from .django_admin.event import EventAdmin
from .django_admin.webhook import WebhookAdmin
from .models import Credential, Delivery, Event, Webhook

if conf.get().admin:
    admin.site.register(Webhook, WebhookAdmin)
    admin.site.register(Delivery, DeliveryAdmin)
    admin.site.register(Event, EventAdmin)
    admin.site.register(Credential, CredentialAdmin)
