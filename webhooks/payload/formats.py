"""Payload formats: what the body says, as a dictionary. Pure but for NetBox's registered webhook callbacks.

default      docs/payload.md
netbox       what NetBox 4.7's built-in webhooks send for the same change (extras.webhooks.send_webhook)
cloudevents  CloudEvents 1.0.2, JSON format, structured content mode; a batch is its batched content mode

`data` is JSON text in the event. It is not parsed where it only has to be put in its place: Raw marks such text, and
dumps() writes it as it is.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from netbox.registry import registry
from rest_framework.utils.encoders import JSONEncoder
from rq.timeouts import BaseTimeoutException
from users.models import User
from utilities.querydict import dict_to_querydict
from utilities.request import NetBoxFakeRequest

from ..choices import FormatChoices, KindChoices
from ..models import Event, Webhook
from ..rendering import expansion
from ..validation.body import is_form

logger = logging.getLogger('webhooks.formats')

JSON = 'application/json'
CLOUDEVENT, CLOUDEVENT_BATCH = 'application/cloudevents+json', 'application/cloudevents-batch+json'
# Keys of what a webhook wants expanded.
Keys = Sequence[str]
OBJECT_EVENTS = {'created': 'object_created', 'updated': 'object_updated', 'deleted': 'object_deleted'}
# Bytes of a batch's body for each event, beside its data and snapshots.
IDENTITY, CLOUDEVENT_ENVELOPE = 100, 500


# Made once: json.dumps() would make an encoder for each value. It is NetBox's: callbacks may give dates, for example.
ENCODER = JSONEncoder(ensure_ascii=False)


class Raw(str):
    """Text that is JSON already."""


def body(webhook: Webhook, events: Sequence[Event], expand: Keys = ()) -> bytes:
    """Return the body without a template, for one event or for a batch of one transaction, model and kind.

    `expand` has the keys of what is shown as its own GET shows it. Webhooks that show an event in the same way share
    the body, which is kept with the event.
    """
    if _is_batch(webhook, events):
        return _body(webhook, events, expand)
    bodies = vars(events[0]).setdefault('_bodies', {})
    way = webhook.payload_format, webhook.http_content_type, webhook.include_snapshots, *expand
    if way not in bodies:
        bodies[way] = _body(webhook, events, expand)
    return bodies[way]


def _body(webhook: Webhook, events: Sequence[Event], expand: Keys) -> bytes:
    shown = FORMATS[webhook.payload_format](webhook, events, expand)
    # NetBox's own webhooks send JSON whatever the content type says.
    if is_form(webhook.http_content_type) and webhook.payload_format == FormatChoices.DEFAULT:
        return urlencode(
            {key: value if isinstance(value, str) else dumps(value) for key, value in shown.items()}
        ).encode()
    return dumps(shown).encode()


def share_of_batch(webhook: Webhook, data: str, snapshots: str) -> int:
    """Return how many bytes an event takes of a batch's body, about. `data` and `snapshots` are JSON."""
    is_cloudevent = webhook.payload_format == FormatChoices.CLOUDEVENTS
    envelope = CLOUDEVENT_ENVELOPE if is_cloudevent else IDENTITY
    # `differences` are as long as the snapshots, at most.
    times = 2 if webhook.include_snapshots else int(webhook.payload_format == FormatChoices.NETBOX)
    return envelope + len(data.encode()) + times * len(snapshots.encode())


def content_type(webhook: Webhook, events: Sequence[Event]) -> str:
    """Return the webhook's content type; CloudEvents have one of their own, where it was left at JSON."""
    if webhook.payload_format != FormatChoices.CLOUDEVENTS or webhook.http_content_type != JSON:
        return webhook.http_content_type
    return CLOUDEVENT_BATCH if _is_batch(webhook, events) else CLOUDEVENT


def dumps(value: Any) -> str:
    """Return JSON, with Raw text in dictionaries and lists as it is. Raises TypeError for what JSON cannot hold."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return '{' + ', '.join(f'{_key(key)}: {dumps(item)}' for key, item in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(dumps, value)) + ']'
    return ENCODER.encode(value)


def _key(key: Any) -> str:
    """Return a key as JSON has it: always a text."""
    if isinstance(key, str):
        return ENCODER.encode(key)
    return ENCODER.encode({key: 0}).removeprefix('{').removesuffix(': 0}')


#
# The formats
#


def default(webhook: Webhook, events: Sequence[Event], expand: Keys = ()) -> dict[str, Any]:
    """Return the body that docs/payload.md describes, of events in the order of their sequence."""
    last = events[-1]
    shown = {
        'event': last.kind,
        'signal_received_timestamp': max(event.timestamp for event in events).timestamp(),
        'model': model_name(last),
        'data': _data(webhook, events, expand),
        'object_type': object_type(last),
    }
    if _is_batch(webhook, events):
        shown['events'] = [_identity(event, expand) for event in events]
    else:
        shown |= _identity(last, expand)
    shown |= {'username': last.username, 'request_id': str(last.request_id) if last.request_id else None}
    if webhook.include_snapshots:
        snapshots = [event.snapshots for event in events]
        shown['snapshots'] = snapshots if _is_batch(webhook, events) else snapshots[0]
        shown['differences'] = _differences(webhook, events)
    if last.test:
        shown['test'] = True
    if last.backfill:
        shown['backfill'] = True
    return shown


def netbox(webhook: Webhook, events: Sequence[Event], expand: Keys = ()) -> dict[str, Any]:
    """Return the body of NetBox's own webhooks for the same change (`extras.webhooks.send_webhook` of 4.7)."""
    last = events[-1]
    shown = {
        'event': last.kind,
        'timestamp': last.timestamp.isoformat(),
        'object_type': object_type(last),
        'data': _data(webhook, events, expand),
    }
    if last.request:
        shown['request'] = last.request
    # Only what the webhook has asked for: that of others is there or not.
    snapshots = [event.snapshots if webhook.needs_before else None for event in events]
    shown['snapshots'] = snapshots if _is_batch(webhook, events) else snapshots[0]
    if webhook.include_snapshots:
        shown['differences'] = _differences(webhook, events)
    if any(event.caused_by for event in events):
        causes = [event.caused_by for event in events]
        shown['caused_by'] = causes if _is_batch(webhook, events) else causes[0]
    if context := _callbacks(last):
        shown['context'] = context
    return shown


def cloudevents(webhook: Webhook, events: Sequence[Event], expand: Keys = ()) -> Any:
    """Return one CloudEvent or, for a batch, a list of them (CloudEvents 1.0.2, JSON format)."""
    shown = [_cloudevent(webhook, event, expand) for event in events]
    return shown if _is_batch(webhook, events) else shown[0]


def _cloudevent(webhook: Webhook, event: Event, expand: Keys) -> dict[str, Any]:
    """CloudEvents 1.0.2, section 3, with the `sequence` extension; names of extensions are lower case letters."""
    data, _unknown = _shown(event, expand)
    optional = {
        'subject': str(event.object_id) if event.object_id > 0 else None,
        'username': event.username,
        'requestid': str(event.request_id) if event.request_id else None,
        'causedby': ','.join(event.caused_by) if event.caused_by else None,
        'test': True if event.test else None,
        'backfill': True if event.backfill else None,
    }
    return {
        'specversion': '1.0',
        'id': str(event.uuid),
        'source': f'//{settings.HOSTNAME}/{settings.BASE_PATH}',
        'type': f'netbox.{object_type(event)}.{event.kind}',
        'time': event.timestamp.isoformat(),
        'datacontenttype': JSON,
        'sequence': str(event.sequence),
        **{key: value for key, value in optional.items() if value is not None},
        'data': _with_snapshots(data, event) if webhook.include_snapshots else data,
    }


def _with_snapshots(data: Raw, event: Event) -> dict[str, Any]:
    return {'object': data, 'snapshots': event.snapshots, 'differences': differences(event)}


FORMATS = {
    FormatChoices.DEFAULT: default,
    FormatChoices.NETBOX: netbox,
    FormatChoices.CLOUDEVENTS: cloudevents,
}


def _is_batch(webhook: Webhook, events: Sequence[Event]) -> bool:
    """Whether the body is that of a batch. One that was made before `batch` was switched off stays one."""
    return webhook.batch or len(events) > 1


def _data(webhook: Webhook, events: Sequence[Event], expand: Keys) -> Raw | list[Raw]:
    data = [_shown(event, expand)[0] for event in events]
    return data if _is_batch(webhook, events) else data[0]


def _shown(event: Event, expand: Keys) -> tuple[Raw, list[str]]:
    """Return the event's data with what is to be expanded, and the keys of what is not known."""
    if not expand:
        return Raw(event.data), event.partial or []
    objects = json.loads(event.expanded) if event.expanded else {}
    tree = expansion.tree_of(expand)
    data, unknown = expansion.merge(event.payload_data or {}, tree, objects)
    # What is expanded is known.
    partial = [name for name in event.partial or [] if name not in tree]
    return Raw(ENCODER.encode(data)), [*partial, *unknown]


def _identity(event: Event, expand: Keys) -> dict[str, Any]:
    _data, partial = _shown(event, expand)
    return {'id': str(event.uuid), 'sequence': event.sequence, **_optional(partial=partial, caused_by=event.caused_by)}


def _optional(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def differences(event: Event) -> dict[str, dict[str, Any]] | None:
    """Return what the change did to the fields of the change log; None where a state that was there is not known."""
    snapshots: dict[str, dict[str, Any] | None] | None = event.snapshots
    if snapshots is None or (snapshots['prechange'] is None and event.kind != KindChoices.CREATED):
        return None
    if snapshots['postchange'] is None and event.kind != KindChoices.DELETED:
        return None
    before, after = snapshots['prechange'] or {}, snapshots['postchange'] or {}
    return {
        'added': {name: value for name, value in after.items() if name not in before},
        'removed': {name: value for name, value in before.items() if name not in after},
        'changed': {
            name: [before[name], value] for name, value in after.items() if name in before and before[name] != value
        },
    }


def _differences(webhook: Webhook, events: Sequence[Event]) -> Any:
    found = [differences(event) for event in events]
    return found if _is_batch(webhook, events) else found[0]


#
# Parts
#


def object_type(event: Event) -> str:
    """Return the model as 'dcim.site'."""
    return '.'.join(_type(event).natural_key())


def model_name(event: Event) -> str:
    """Return the name of the model's class, as 'Site'."""
    model = _type(event).model_class()
    return model.__name__ if model else _type(event).model


def _type(event: Event) -> ContentType:
    return ContentType.objects.get_for_id(event.object_type_id)  # Django keeps it for the process


def _callbacks(event: Event) -> dict[str, Any]:
    """Return what plugins add to the payload by register_webhook_callback()."""
    context: dict[str, Any] = {}
    for callback in registry['webhook_callbacks']:
        try:
            event_type = OBJECT_EVENTS.get(event.kind, event.kind)
            context.update(callback(_type(event), event_type, event.payload_data, _request(event)) or {})
        except BaseTimeoutException:
            # It is RQ who ends the job.
            raise
        except Exception:
            logger.exception('event=%s callback=%s failed', event.uuid, callback)
    return context


def _request(event: Event) -> NetBoxFakeRequest | None:
    """Return the request as NetBox's own webhooks give it to callbacks; cookies, form and headers are not stored."""
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


def template_context(webhook: Webhook, events: Sequence[Event], expand: Keys = ()) -> str:
    """Return what templates see, as JSON: the names of NetBox's webhooks and of the default format."""
    names = {**default(webhook, events, expand), **netbox(webhook, events, expand)}
    return dumps({**names, 'model': model_name(events[-1]).lower()})
