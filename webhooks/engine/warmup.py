"""Warm up: what every job would have to build anew is built before there is one.

In the worker, whose forks the jobs are, above all the URLconf's tables for reverse(), half a second, and the
serializers: one object of each subscribed model is rendered for that and thrown away. In a standby (standby.py) also
what a new database backend has to look up for each table.
"""

import json
import logging
import uuid

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from netbox.registry import registry

from .. import rendering
from ..models import Delivery, Subscription
from ..outbox import snapshots
from ..payload.http_request import Builder
from . import claims, lanes
from .claimed import prepare

logger = logging.getLogger('webhooks.warmup')


def warm_up() -> None:
    """Render an object of each subscribed model. A model that cannot be rendered is left to its own event."""
    for object_type_id in Subscription.objects.open_object_types() or ():
        model = ContentType.objects.get_for_id(object_type_id).model_class()
        if model is not None:
            _render_newest(model)


def rehearse() -> None:
    """Do what a job does, without anything coming of it."""
    warm_up()
    try:
        with lanes.turn() as now:
            claims.claim(uuid.uuid4(), (), 1, now)
            transaction.set_rollback(True)
        # What plugins add to payloads is their own code: who knows what it does, and it is not to be done twice.
        if not registry['webhook_callbacks']:
            newest = Delivery.objects.select_related('event', 'webhook__health').order_by('-pk')[:1]
            for one in newest:
                prepare(one, Builder(one.webhook), 0)
    except Exception:
        logger.warning('rehearsal=failed', exc_info=True)


def _render_newest(model: type) -> None:
    newest = model._base_manager.order_by('-pk').values_list('pk', flat=True)[:1]
    try:
        with transaction.atomic():
            rendering.render(model, [json.loads(text) for text in snapshots.take(model, list(newest)).values()])
    except Exception:
        logger.warning('warm_up=failed model=%s', model._meta.label_lower, exc_info=True)
