import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.events import OBJECT_CREATED, OBJECT_DELETED, OBJECT_UPDATED
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from django.test import RequestFactory
from extras.models import EventRule, Webhook
from netbox.context_managers import event_tracking
from users.models import User

from support.builders import NOWHERE
from support.objects.surroundings import unique

OBJECT_EVENTS = (OBJECT_CREATED, OBJECT_UPDATED, OBJECT_DELETED)


def builtin_rule(*models: type[Model], kinds: tuple[str, ...] = OBJECT_EVENTS, **fields: Any) -> EventRule:
    """Return a rule with its webhook. Fields named `rule_…` are the rule's."""
    of_rule = {name.removeprefix('rule_'): fields.pop(name) for name in list(fields) if name.startswith('rule_')}
    webhook = Webhook(**{'name': unique('Webhook'), 'payload_url': NOWHERE} | fields)
    webhook.save()
    return rule(webhook, *(models or (Site,)), kinds=kinds, **of_rule)


def rule(
    action_object: Model | None, *models: type[Model], kinds: tuple[str, ...] = OBJECT_EVENTS, **fields: Any
) -> EventRule:
    defaults = {'name': unique('Rule'), 'action_type': 'webhook', 'event_types': list(kinds)}
    made = EventRule(**defaults | fields, action_object=action_object)
    made.save()
    made.object_types.set(ContentType.objects.get_for_models(*models).values())
    return made


@contextmanager
def request_by(user: User, path: str = '/dcim/sites/add/', method: str = 'POST') -> Iterator[None]:
    """Run one request and transaction, which the built-in webhooks need."""
    request = RequestFactory().generic(method, path)
    request.user, request.id = user, uuid.uuid4()
    with event_tracking(request), transaction.atomic():
        yield
