"""Warm up: an object of each subscribed model is rendered before there is a change, since the first one is slow.

A new process makes NetBox's serializers and the tables for reverse(). A new connection looks up each table.
"""

import json
import logging

from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from ... import rendering
from ...models import Subscription
from ...outbox import snapshots

logger = logging.getLogger('webhooks.dispatch')


def warm_up() -> None:
    """Render an object of each subscribed model. A model that cannot be rendered is left to its own event."""
    for object_type_id in Subscription.objects.open_object_types() or ():
        model = ContentType.objects.get_for_id(object_type_id).model_class()
        if model is not None:
            _render_newest(model)


def _render_newest(model: type) -> None:
    newest = model._base_manager.order_by('-pk').values_list('pk', flat=True)[:1]
    try:
        with transaction.atomic():
            rendering.render(model, [json.loads(text) for text in snapshots.take(model, list(newest)).values()])
    except Exception:
        logger.warning('warm_up=failed model=%s', model._meta.label_lower, exc_info=True)
