"""Look-ups that several commands share. Each raises CommandError if there is no such thing."""

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management.base import CommandError
from django.db.models import Model

from .. import object_types
from ..models import Webhook


def webhook(name: str, option: str = '') -> Webhook:
    """Return the webhook of this name. `option` stands before the error, such as '--webhook: '."""
    try:
        return Webhook.objects.get(name=name)
    except Webhook.DoesNotExist:
        raise CommandError(f'{option}there is no webhook with the name {name!r}') from None


def model(label: str, option: str = '') -> type[Model]:
    """Return the model of a label such as 'dcim.site'."""
    try:
        return apps.get_model(label.lower())
    except (LookupError, ValueError):
        raise CommandError(f'{option}there is no model {label!r}; write APP.MODEL, such as dcim.site') from None


def allowed_type(label: str, option: str = '') -> ContentType:
    """Return the object type of a label such as 'dcim.site', if webhooks may send it."""
    try:
        return object_types.by_label()[label.lower()]
    except KeyError:
        raise CommandError(f'{option}webhooks may not send {label!r}; see the setting allowed_models') from None
