"""A subscribed webhook, a site, and their events. objects/ has objects with all relations."""

import itertools
import json
import re
from typing import Any

from core.models import ObjectType
from dcim.models import Device, DeviceRole, DeviceType, Interface, Manufacturer, Site
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from extras.models import CustomField

from webhooks import conf
from webhooks.choices import KindChoices
from webhooks.models import Event, Webhook
from webhooks.outbox import snapshots

CREATED, UPDATED, DELETED = KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED
KINDS = (CREATED, UPDATED, DELETED)
FLAGS = {CREATED: 'type_create', UPDATED: 'type_update', DELETED: 'type_delete'}
# Valid, and never called.
NOWHERE = 'http://127.0.0.1:9/'

_numbers = itertools.count(1)
# Definitions that were valid once. Most tests have the same, and a whole check takes several milliseconds.
_valid: set[str] = set()


def subscribe(url: str, *models: type[Model], kinds: tuple[str, ...] = KINDS, **fields: Any) -> Webhook:
    ignored_users = fields.pop('ignore_users', ())
    flags = {flag: kind in kinds for kind, flag in FLAGS.items()}
    # Tests save objects only to make events.
    defaults = {'name': f'Webhook {next(_numbers)}', 'payload_url': url, 'only_real_changes': False}
    webhook = Webhook(**defaults | flags | fields)
    _check(webhook, {**flags, 'payload_url': url, **fields, 'name': ''})
    webhook.save()
    webhook.object_types.set(ContentType.objects.get_for_models(*models).values())
    webhook.ignore_users.set(ignored_users)
    return webhook


def _check(webhook: Webhook, fields: dict[str, Any]) -> None:
    """Check the definition as forms do. Of one that was valid before, with these settings, check the fields alone."""
    definition = re.sub(r'127\.0\.0\.1:\d+', 'receiver', f'{sorted(fields.items())} {conf.get()}')
    # Anything else, such as a credential or a broker, may be valid in one test only.
    are_plain = all(value is None or isinstance(value, (bool, int, str)) for value in fields.values())
    is_plain = are_plain and fields['payload_url'].startswith('http://127.0.0.1:')
    if is_plain and definition in _valid:
        webhook.clean_fields()
        return
    webhook.full_clean()
    if is_plain:
        _valid.add(definition)


#
# Objects with nothing but what they must have
#


def site(**fields: Any) -> Site:
    return Site.objects.create(**named('site') | fields)


def device(**fields: Any) -> Device:
    required = {'name': f'device-{next(_numbers)}'}
    if 'device_type' not in fields:
        required['device_type'] = device_type()
    if 'role' not in fields:
        required['role'] = DeviceRole.objects.create(**named('role'))
    if 'site' not in fields:
        required['site'] = site()
    return Device.objects.create(**required | fields)


def device_type(**fields: Any) -> DeviceType:
    manufacturer = Manufacturer.objects.create(**named('maker'))
    name = f'type-{next(_numbers)}'
    return DeviceType.objects.create(**{'manufacturer': manufacturer, 'model': name, 'slug': name} | fields)


def interface(owner: Device, **fields: Any) -> Interface:
    return Interface.objects.create(device=owner, **{'name': f'eth{next(_numbers)}', 'type': 'other'} | fields)


def custom_field(model: type[Model], name: str, kind: str, **fields: Any) -> None:
    made = CustomField.objects.create(name=name, type=kind, **fields)
    made.object_types.set([ObjectType.objects.get_for_model(model)])


def named(prefix: str) -> dict[str, str]:
    name = f'{prefix}-{next(_numbers)}'
    return {'name': name, 'slug': name}


#
# The outbox
#


def recorded(*models: type[Model]) -> list[Event]:
    """Return the models' events, or all, in sequence order."""
    types = [ContentType.objects.get_for_model(model) for model in models]
    events = Event.objects.filter(object_type__in=types) if models else Event.objects.all()
    return list(events.order_by('sequence'))


def changes(*models: type[Model]) -> list[tuple[str, int]]:
    """Return the recorded events as (kind, primary key)."""
    return [(event.kind, event.object_id) for event in recorded(*models)]


def stored(model: type[Model], pk: int) -> dict[str, Any]:
    return json.loads(snapshots.take(model, [pk])[pk])


def forget_events() -> None:
    Event.objects.all().delete()
