"""A second door in: NetBox's event rules, whose action may be to send with one of our webhooks.

So job events, and rules that exist, gain retries and a log. What is sent, and when, is NetBox's: the data as its event
rules have it, also for changes that were rolled back.
"""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from extras.constants import WEBHOOK_EVENT_TYPES
from netbox.event_rules import EventRuleAction

from . import dispatch, locks, outbox, queue
from .batches import Group
from .models import Event, Webhook
from .models.sequence import draw


class SendWithWebhooks(EventRuleAction):
    slug = 'webhooks.send'
    label = _('Send with Webhooks')
    description = _('Send an HTTP request that is retried and logged')
    object_model = Webhook
    object_required = True

    def enqueue(self, *, event_rule: Any, event_context: Any, action_object: Webhook, action_data: dict) -> None:
        if not action_object.enabled:
            return
        with transaction.atomic():
            event = Event.objects.create(**_fields(event_context, action_data))
            locks.acquire(locks.LINE)
            dispatch.deliver([Group(action_object.pk, [event.pk])])
            transaction.on_commit(queue.wake, robust=True)

    def resolve_import_object(self, value: str) -> Webhook:
        return Webhook.objects.get(name=value)


def _fields(context: Any, data: dict) -> dict[str, Any]:
    request, user, now = context.get('request'), context.get('user'), timezone.now()
    return {
        'sequence': draw(),
        'kind': _kind(context),
        'object_type_id': context['object_type'].pk,
        'object_id': data.get('id') or 0,
        'object_repr': str(data.get('display') or _kind(context))[:200],
        'timestamp': now,
        'username': user.username if user else None,
        'request_id': getattr(request, 'id', None),
        'request': outbox.shown(request) if request else None,
        'snapshots': json.loads(_dumps(context.get('snapshots'))),
        'data': _dumps(data),
        'dispatched_at': now,
        'transaction_id': 0,
        'transaction_time': now,
    }


def _kind(context: Any) -> str:
    return WEBHOOK_EVENT_TYPES.get(context['event_type'], context['event_type'])


def _dumps(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)


event_rule_actions = [SendWithWebhooks]
