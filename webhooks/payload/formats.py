"""Makes the bodies of requests, in four payload formats.

default      docs/payload.md
netbox       extras.webhooks.send_webhook of NetBox 4.7
cloudevents  CloudEvents 1.0.2, JSON format, structured and batched content mode
thin         docs/payload.md: names the change, without the object
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from rest_framework.utils.encoders import JSONEncoder

from .. import conf
from ..choices import FormatChoices, KindChoices
from ..models import Event, Webhook
from ..object_types import label_of_id
from ..validation.body import is_form
from . import callbacks, change_set
from .change_set import Part
from .selection import narrow

# Content types. JSON_TYPE is the default of webhooks.
JSON_TYPE = 'application/json'
CLOUDEVENT_TYPE = 'application/cloudevents+json'
CLOUDEVENT_BATCH_TYPE = 'application/cloudevents-batch+json'
# Keys of related objects that are shown in full, such as device.site.
Keys = Sequence[str]
# Characters that no text of a CloudEvent may have (1.0.2, *Type System*), to blanks: a message may have several lines.
NO_TEXT = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0xFDD0, 0xFDF0)], ' ') | {
    plane << 16 | last: ' ' for plane in range(17) for last in (0xFFFE, 0xFFFF)
}
# Keys of the default format that hold the object, or depend on it.
OBJECT_KEYS = frozenset({'data', 'snapshots', 'differences', 'partial'})
# As many as PostgreSQL's bigint has. Texts of the same length sort as their numbers do.
SEQUENCE_DIGITS = 19

ENCODER = JSONEncoder(ensure_ascii=False)


class Raw(str):
    """A text that is JSON already: dumps() copies it."""


def body(webhook: Webhook, events: Sequence[Event], expand: Keys = (), part: Part | None = None) -> bytes:
    """Return the body of a request whose webhook has no body template, in the webhook's payload format.

    `events` are all of the `part` of a change set, or one. `expand` holds the keys to show in full.
    """
    events = narrow(webhook, events, expand)
    if part:
        return _encoded(webhook, _change_set(webhook, events, part))
    (event,) = events
    # Many webhooks may send one event. If their settings are the same, they share the body.
    bodies = vars(event).setdefault('_bodies', {})
    way = webhook.payload_format, webhook.http_content_type, webhook.include_snapshots
    if way not in bodies:
        bodies[way] = _encoded(webhook, FORMATS[webhook.payload_format](webhook, event))
    return bodies[way]


def _change_set(webhook: Webhook, events: Sequence[Event], part: Part) -> Any:
    changes = [FORMATS[webhook.payload_format](webhook, event) for event in events]
    if webhook.payload_format != FormatChoices.CLOUDEVENTS:
        return change_set.envelope(events, changes, part)
    return [change | change_set.extensions(event, part) for change, event in zip(changes, events, strict=True)]


def _encoded(webhook: Webhook, shown: Any) -> bytes:
    # In the format netbox a form stays JSON, as NetBox's own webhooks send JSON with any content type.
    if is_form(webhook.http_content_type) and webhook.payload_format == FormatChoices.DEFAULT:
        return urlencode(
            {key: value if isinstance(value, str) else dumps(value) for key, value in shown.items()}
        ).encode()
    return dumps(shown).encode()


def content_type(webhook: Webhook, part: Part | None = None) -> str:
    """Return the `Content-Type`: that of CloudEvents if the webhook sends them and has the default, else its own."""
    if webhook.payload_format != FormatChoices.CLOUDEVENTS or webhook.http_content_type != JSON_TYPE:
        return webhook.http_content_type
    return CLOUDEVENT_BATCH_TYPE if part else CLOUDEVENT_TYPE


def dumps(value: Any) -> str:
    """Return the value as JSON. Raises TypeError for a value that JSON cannot show."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return '{' + ', '.join(f'{_key(key)}: {dumps(item)}' for key, item in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(dumps, value)) + ']'
    return ENCODER.encode(value)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return ENCODER.encode(key)
    return ENCODER.encode({key: 0}).removeprefix('{').removesuffix(': 0}')


# The formats. Their events are narrowed to the keys that the webhook sends (selection.py).


def default(webhook: Webhook, event: Event) -> dict[str, Any]:
    """Return the event in the default format."""
    notes = {'partial': event.partial, 'caused_by': event.caused_by, 'changelog_message': event.changelog_message}
    shown = {
        'event': event.kind,
        'signal_received_timestamp': event.timestamp.timestamp(),
        'model': model_name(event),
        'data': Raw(event.data),
        'object_type': object_type(event),
        'id': str(event.uuid),
        'sequence': event.sequence,
        **{name: value for name, value in notes.items() if value},
        'username': event.username,
        'request_id': str(event.request_id) if event.request_id else None,
    }
    if webhook.include_snapshots:
        shown |= {'snapshots': event.snapshots, 'differences': differences(event)}
    shown |= change_set.merge_of(event)
    if event.test:
        shown['test'] = True
    if event.backfill:
        shown['backfill'] = True
    return shown | _membership(event)


def _membership(event: Event) -> dict[str, str]:
    return {'membership': event.membership} if event.membership else {}


def netbox(webhook: Webhook, event: Event) -> dict[str, Any]:
    """Return the event in the format of NetBox's own webhooks, with `context` from plugins' callbacks."""
    shown = {
        'event': event.kind,
        'timestamp': event.timestamp.isoformat(),
        'object_type': object_type(event),
        'data': Raw(event.data),
    }
    if event.request:
        shown['request'] = event.request
    # If only other webhooks asked for snapshots, this one does not show them.
    shown['snapshots'] = event.snapshots if webhook.needs_before else None
    if webhook.include_snapshots:
        shown['differences'] = differences(event)
    if event.caused_by:
        shown['caused_by'] = event.caused_by
    shown |= change_set.merge_of(event)
    if context := callbacks.values(event):
        shown['context'] = context
    return shown | _membership(event)


def cloudevents(webhook: Webhook, event: Event) -> dict[str, Any]:
    """Return the event as a CloudEvent. Its extensions are named in lower case letters (1.0.2, section 3)."""
    data = Raw(event.data)
    optional = {
        'subject': str(event.object_id) if event.object_id > 0 else None,
        'partitionkey': f'{object_type(event)}:{event.object_id}' if event.object_id > 0 else None,
        'username': event.username,
        'requestid': str(event.request_id) if event.request_id else None,
        'changelogmessage': event.changelog_message,
        'causedby': ','.join(event.caused_by) if event.caused_by else None,
        **(event.trace or {}),
        'branch': event.branch['name'] if event.branch else None,
        'branchid': event.branch['id'] if event.branch else None,
        'test': True if event.test else None,
        'backfill': True if event.backfill else None,
        'membership': event.membership,
    }
    return {
        'specversion': '1.0',
        'id': str(event.uuid),
        'source': source(),
        'type': f'netbox.{object_type(event)}.{event.kind}',
        'time': event.timestamp.isoformat(),
        'datacontenttype': JSON_TYPE,
        'sequence': f'{event.sequence:0{SEQUENCE_DIGITS}}',
        **{key: _text(value) for key, value in optional.items() if value is not None},
        'data': _with_snapshots(data, event) if webhook.include_snapshots else data,
    }


def _text(value: Any) -> Any:
    return value.translate(NO_TEXT) if isinstance(value, str) else value


def source() -> str:
    """Return the `source` of CloudEvents: the setting, else a URN. Redeployments with the same SECRET_KEY keep it."""
    return conf.get().cloudevents_source or f'urn:netbox:{settings.DEPLOYMENT_ID}'


def key(webhook: Webhook, events: Sequence[Event]) -> str:
    """Return the key of a broker's message: messages with the same key stay in order.

    It names the object. A change set holds several, so all of a webhook's have the same key.
    """
    if webhook.change_set or len(events) > 1:
        return f'webhook:{webhook.pk}'
    return f'{object_type(events[0])}:{events[0].object_id}'


def _with_snapshots(data: Raw, event: Event) -> dict[str, Any]:
    return {'object': data, 'snapshots': event.snapshots, 'differences': differences(event)}


def thin(webhook: Webhook, event: Event) -> dict[str, Any]:
    """Return the changed keys without the object, for receivers that read it from NetBox.

    `changed` is None if this is no update, or the state before is unknown.
    """
    found = differences(event) if event.kind == KindChoices.UPDATED else None
    about = {name: value for name, value in default(webhook, event).items() if name not in OBJECT_KEYS}
    return about | {
        'object_id': event.object_id if event.object_id > 0 else None,
        'url': (event.payload_data or {}).get('url'),
        'changed': found and sorted({name for part in found.values() for name in part}),
    }


FORMATS = {
    FormatChoices.DEFAULT: default,
    FormatChoices.NETBOX: netbox,
    FormatChoices.CLOUDEVENTS: cloudevents,
    FormatChoices.THIN: thin,
}


def differences(event: Event) -> dict[str, dict[str, Any]] | None:
    """Return {name: value} `added` and `removed`, {name: [before, after]} `changed`. None without a needed snapshot."""
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


# Their parts.


def object_type(event: Event) -> str:
    """Return the label of the event's model, such as 'dcim.site'."""
    return label_of_id(event.object_type_id)


def model_name(event: Event) -> str:
    """Return the class name of the event's model, such as 'Site'. If its plugin was removed, the lower-case name."""
    model = _type(event).model_class()
    return model.__name__ if model else _type(event).model


def _type(event: Event) -> ContentType:
    return ContentType.objects.get_for_id(event.object_type_id)


def template_context(
    webhook: Webhook,
    events: Sequence[Event],
    expand: Keys = (),
    more: Mapping[str, Any] = MappingProxyType({}),
    part: Part | None = None,
) -> str:
    """Return the variables that a template may use, as a JSON object: the keys of the formats default and netbox.

    `more` are further variables. `expand` are the keys of related objects that are shown in full. With `part`, the
    variables are the envelope of a change set, and each of its changes has the variables of its event.
    """
    events = narrow(webhook, events, expand)
    if part:
        changes = [_names(webhook, event) for event in events]
        return dumps({**change_set.envelope(events, changes, part), **more})
    (event,) = events
    return dumps({**_names(webhook, event), **more})


def _names(webhook: Webhook, event: Event) -> dict[str, Any]:
    names = {**default(webhook, event), **netbox(webhook, event)}
    return {**names, 'model': model_name(event).lower()}
