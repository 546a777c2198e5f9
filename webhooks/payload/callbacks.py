"""Asks the webhook callbacks of plugins for their values, as NetBox's built-in webhooks do."""

import logging
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from netbox.registry import registry
from rq.timeouts import BaseTimeoutException
from users.models import User
from utilities.querydict import dict_to_querydict
from utilities.request import NetBoxFakeRequest

from ..models import Event

logger = logging.getLogger('webhooks.formats')

# NetBox's names for our kinds of change.
NETBOX_EVENT_TYPES = {'created': 'object_created', 'updated': 'object_updated', 'deleted': 'object_deleted'}


def values(event: Event) -> dict[str, Any]:
    """Return the values that plugins add by register_webhook_callback(). Their errors are only logged."""
    found: dict[str, Any] = {}
    model, event_type = ContentType.objects.get_for_id(event.object_type_id), NETBOX_EVENT_TYPES.get(event.kind)
    for callback in registry['webhook_callbacks']:
        try:
            found.update(callback(model, event_type or event.kind, event.payload_data, _request(event)) or {})
        except BaseTimeoutException:
            # RQ ends the job: this is no error of the callback.
            raise
        except Exception:
            logger.exception('event=%s callback=%s failed', event.uuid, callback)
    return found


def _request(event: Event) -> NetBoxFakeRequest | None:
    """Return the event's request for callbacks, or None. Cookies, form and headers are not stored."""
    shown = event.request
    if not shown:
        return None
    return NetBoxFakeRequest(
        {
            **shown,
            'id': event.request_id,
            'user': User.objects.filter(username=shown['user']).first() or AnonymousUser(),
            'GET': dict_to_querydict(shown['GET']),
            'POST': QueryDict(),
            'COOKIES': {},
            'META': {},
            'FILES': MultiValueDict(),
        }
    )
