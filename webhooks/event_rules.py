"""NetBox decides their data and time. It also sends changes that code rolled back inside a successful request."""

import json
import logging
import threading
import weakref
from typing import Any

from core.models import Job
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from extras.constants import WEBHOOK_EVENT_TYPES
from netbox.context import current_request
from netbox.event_rules import EventRuleAction

from . import conf, object_types
from .engine.dispatch.loop import make_deliveries
from .engine.notifications import EVENT_TYPES
from .models import Event, Webhook
from .models.sequence import draw
from .outbox import recording, wakeup

logger = logging.getLogger('webhooks.event_rules')

OWN_TYPES = {event_type.name for event_type in EVENT_TYPES}


class SendWithWebhooks(EventRuleAction):
    slug = 'webhooks.send'
    label = _('Send with Webhooks')
    description = _('Send an HTTP request through a webhook of the plugin, with retries and a log')
    object_model = Webhook
    object_required = True

    def enqueue(self, *, event_rule: Any, event_context: Any, action_object: Webhook, action_data: dict) -> None:
        if not conf.get().enabled or not action_object.enabled:
            return
        if _is_its_own(event_context, action_object):
            return
        label = '.'.join(event_context['object_type'].natural_key())
        if event_context['event_type'] not in OWN_TYPES and label not in object_types.by_label():
            logger.warning(
                'webhook=%s model=%s event not sent: the model is not in the setting allowed_models',
                action_object.pk,
                label,
            )
            return
        with transaction.atomic():
            event = Event.objects.create(**_fields(event_context, action_data))
            make_deliveries([(action_object.pk, event.pk)])
            transaction.on_commit(wakeup.wake, robust=True)

    def get_object_queryset(self) -> QuerySet[Webhook]:
        """Return the webhooks that whoever saves a rule may choose: those they may view. A shell may choose all."""
        request = current_request.get()
        return Webhook.objects.restrict(request.user, 'view') if request else Webhook.objects.all()

    def validate(self, *, action_object: Webhook, action_data: Any) -> None:
        """The rule sends with the webhook's stored headers, and its answers name the webhook."""
        if not self.get_object_queryset().filter(pk=action_object.pk).exists():
            raise ValidationError({'action_object_id': _('You may not view this webhook.')})

    def resolve_import_object(self, value: str) -> Webhook:
        return self.get_object_queryset().get(name=value)


def _is_its_own(context: Any, webhook: Webhook) -> bool:
    """A webhook is never told of its own trouble: that would make more of it."""
    return context['event_type'] in OWN_TYPES and context['object_id'] == webhook.pk


def _fields(context: Any, data: dict) -> dict[str, Any]:
    request, now, sequence = context.get('request'), timezone.now(), draw()
    return {
        'sequence': sequence,
        'kind': _kind(context),
        'object_type_id': context['object_type'].pk,
        'object_id': context.get('object_id') or _object_of_job(context) or -sequence,
        'object_repr': str(data.get('display') or _kind(context))[:200],
        'timestamp': now,
        'username': _username(context),
        'request_id': getattr(request, 'id', None),
        'request': recording.shown(request) if request else None,
        'trace': recording.trace_of(request),
        'snapshots': json.loads(_dumps(context.get('snapshots'))),
        'data': _dumps(data),
        'dispatched_at': now,
        'transaction_id': 0,
        'transaction_time': now,
    }


def _username(context: Any) -> str | None:
    """netbox-branching gives only a name."""
    user = context.get('user')
    return user.username if user else context.get('username')


_saved = threading.local()


@receiver(post_save, sender=Job, dispatch_uid='webhooks.job')
def _job_saved(instance: Job, **kwargs: Any) -> None:
    """NetBox does not tell a rule its job, but has just saved it."""
    _saved.job = weakref.ref(instance)


def _object_of_job(context: Any) -> int | None:
    """Events of a job's object are sent in order. A job without an object gets a negative number."""
    job = _saved.job() if hasattr(_saved, 'job') else None
    if job is None or job.object_type_id != context['object_type'].pk or job.data is not context['data']:
        return None
    return job.object_id or -job.pk


def _kind(context: Any) -> str:
    name = context['event_type']
    return name.removeprefix('webhook_') if name in OWN_TYPES else WEBHOOK_EVENT_TYPES.get(name, name)


def _dumps(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)


event_rule_actions = [SendWithWebhooks]
