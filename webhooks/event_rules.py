"""Lets NetBox's event rules send through a webhook of the plugin.

NetBox decides the data and the time. It also sends changes that code rolled back inside a successful request.
"""

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
from .engine import commands
from .event_types import EVENT_TYPE_NAMES
from .models import Event, Webhook
from .models.sequence import draw
from .outbox import recording, wakeup

logger = logging.getLogger('webhooks.event_rules')


class SendWithWebhooks(EventRuleAction):
    """The action of an event rule that sends the event through a webhook, with retries and a log."""

    slug = 'webhooks.send'
    label = _('Send with Webhooks')
    description = _('Send an HTTP request through a webhook of the plugin, with retries and a log')
    object_model = Webhook
    object_required = True

    def enqueue(self, *, event_rule: Any, event_context: Any, action_object: Webhook, action_data: dict) -> None:
        """Insert an event and its delivery to the webhook, and wake a worker after the commit.

        NetBox calls it for each event that a rule matches. Nothing is sent if the plugin or the webhook is off. Events
        about this webhook, and of models that are not allowed, are not sent either.
        """
        if not conf.get().enabled or not action_object.enabled:
            return
        if _is_its_own(event_context, action_object):
            return
        label = object_types.label_of(event_context['object_type'])
        if event_context['event_type'] not in EVENT_TYPE_NAMES and label not in object_types.by_label():
            logger.warning(
                'webhook=%s name=%r model=%s event not sent: the model is not in the setting allowed_models',
                action_object.pk,
                action_object.name,
                label,
            )
            return
        with transaction.atomic():
            event = Event.objects.create(**_fields(event_context, action_data))
            commands.make([(action_object.pk, event.pk)])
            transaction.on_commit(wakeup.wake, robust=True)

    def get_object_queryset(self) -> QuerySet[Webhook]:
        """Return the webhooks that a rule may choose: all that its author may view. In a shell these are all."""
        request = current_request.get()
        return Webhook.objects.restrict(request.user, 'view') if request else Webhook.objects.all()

    def validate(self, *, action_object: Webhook, action_data: Any) -> None:
        """Raise ValidationError if the user may not view the webhook.

        Otherwise a rule could send with the stored headers of a hidden webhook.
        """
        if not self.get_object_queryset().filter(pk=action_object.pk).exists():
            raise ValidationError({'action_object_id': _('You may not view this webhook.')})

    def resolve_import_object(self, value: str) -> Webhook:
        """Return the webhook that an imported rule names. Raises Webhook.DoesNotExist."""
        return self.get_object_queryset().get(name=value)


def _is_its_own(context: Any, webhook: Webhook) -> bool:
    """Return whether the event is about the webhook itself. Reporting its own trouble to it would make more of it."""
    return context['event_type'] in EVENT_TYPE_NAMES and context['object_id'] == webhook.pk


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
    """Return the name of the user, None without one. netbox-branching gives a name only."""
    user = context.get('user')
    return user.username if user else context.get('username')


_saved = threading.local()


@receiver(post_save, sender=Job, dispatch_uid='webhooks.job')
def _job_saved(instance: Job, **kwargs: Any) -> None:
    """Remember the job. NetBox does not pass the job to the rule, but has saved it just before."""
    _saved.job = weakref.ref(instance)


def _object_of_job(context: Any) -> int | None:
    """Return the id of the object of the job that the event is about, so that its events are sent in order.

    A job without an object gets a negative number of its own. None: the event is about no job.
    """
    job = _saved.job() if hasattr(_saved, 'job') else None
    if job is None or job.object_type_id != context['object_type'].pk or job.data is not context['data']:
        return None
    return job.object_id or -job.pk


def _kind(context: Any) -> str:
    name = context['event_type']
    return name.removeprefix('webhook_') if name in EVENT_TYPE_NAMES else WEBHOOK_EVENT_TYPES.get(name, name)


def _dumps(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)


event_rule_actions = [SendWithWebhooks]
