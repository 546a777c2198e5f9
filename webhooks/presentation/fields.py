"""The fields of a webhook: groups, order, help, and which place leaves which of them out.

Forms, tables, filters, the REST API and GraphQL are made from these. A new field needs a name in GROUPS, and a reason
in LEFT_OUT for each place that does without it.
"""

from collections.abc import Container
from typing import NamedTuple

from django.db.models import BooleanField, Field, JSONField
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from ..models import Webhook


class Row(NamedTuple):
    """Several fields in one row of a form, under one label."""

    names: tuple[str, ...]
    label: str
    help: str = ''


class Group(NamedTuple):
    """Fields under a title, in the order of the forms.

    `is_folded`: a form shows only the title until somebody opens it.
    """

    title: str
    rows: tuple[str | Row, ...]
    is_folded: bool = True

    @property
    def names(self) -> list[str]:
        """Return the names of all its fields, those in rows too."""
        return [name for row in self.rows for name in (row.names if isinstance(row, Row) else (row,))]

    def is_open(self, webhook: Webhook, wrong: Container[str] = ()) -> bool:
        """Whether a form shows its fields: it is never folded, has an error (`wrong` names the fields), or has a
        changed value.
        """
        return not self.is_folded or any(name in wrong or _is_chosen(webhook, name) for name in self.names)


# The switches for kinds of change. Forms show them in one row.
KINDS = ('type_create', 'type_update', 'type_delete')
# Fields of the form alone: they say how to replace the secret.
SECRET_CHOICES = ('generate_secret', 'clear_secret', 'keep_previous')
# A field of the form alone: whether the present objects of a new list are sent.
SEND_LIST = 'send_list'
FORM_ONLY = (*SECRET_CHOICES, SEND_LIST)

GROUPS = (
    Group(
        _('Webhook'),
        (
            'name', 'description', 'object_types', 'filters', SEND_LIST,
            Row(KINDS, _('Events'), _('Choose at least one.')), 'payload_url', 'secret_path', 'secret', *SECRET_CHOICES,
        ),
        is_folded=False,
    ),
    Group(_('State and Tags'), (Row(('enabled', 'paused'), _('State')), 'tags')),
    Group(
        _('Only Some Changes'),
        ('only_real_changes', 'only_if_changed', 'conditions', 'ignore_users'),
    ),
    Group(
        _('Request and Body'),
        (
            'http_method', 'http_content_type', 'credential', 'additional_headers', 'standard_headers',
            'payload_format', 'body_template', 'include_snapshots', 'include_components', 'include_config_contexts',
            'expand', 'fields', 'omit', 'change_set',
        ),
    ),
    Group(_('Retries and Limits'), (
            'success_conditions', 'max_attempts', 'timeout', 'rate_limit', 'concurrency', 'ordered', 'latest_only',
            'quiet', 'quiet_max',
        ),
   ),
    Group(_('TLS'), ('ssl_verification', 'ca_file_path', 'client_cert_path', 'client_key_path')),
    Group(_('Notifications'), ('notification_groups',)),
)  # fmt: skip

# All fields of the model that users may set.
NAMES = tuple(name for group in GROUPS for name in group.names if name not in FORM_ONLY)

# Examples that an empty field of a form shows in grey (placeholders).
EXAMPLES = {
    'payload_url': 'https://example.com/hooks/netbox',
    'additional_headers': 'Authorization: Bearer …',
    'body_template': '{"text": "{{ data.name }}: {{ event }}"}',
    'expand': 'device, device.site',
    'fields': '{"dcim.site": ["id", "name", "status"]}',
    'omit': '{"dcim.device": ["config_context", "custom_fields.snmp_community"]}',
    'filters': 'dcim.device: status=active&region=europe',
    'only_if_changed': 'status, site.slug, custom_fields.owner',
    'conditions': '{"attr": "status.value", "value": "active"}',
    'success_conditions': '{"attr": "body.ok", "value": true}',
}

# Help that replaces the model's own, where that is missing or too short.
MORE_HELP = {
    'conditions': _(
        'Only changes that meet these conditions are sent. JSON, as in event rules. Example, for sites that became '
        'active: '
        '{"and": [{"attr": "status", "op": "changed"}, {"attr": "status.value", "value": "active"}]}'
    ),
    'success_conditions': _(
        'A delivery succeeds only if the answer is below 400 and meets these conditions. JSON, as in event '
        'rules, over status, text, headers.… (name in lower case) and body.… (key of its JSON): {"attr": '
        '"body.ok", "value": true}'
    ),
    'expand': _(
        'Related objects are sent in brief: ID, name, URL. To send some with all their fields, enter their keys, '
        'separated by commas. Example, for interfaces: device, device.site'
    ),
    'fields': _(
        'Only these keys of an object are sent, as with ?fields= in the REST API. JSON, by object type: '
        '{"dcim.site": ["id", "name", "status.value"]}. For other object types, all keys are sent.'
    ),
    'omit': _(
        'These keys of an object are not sent, as with ?omit= in the REST API. JSON, by object type: '
        '{"dcim.device": ["config_context", "custom_fields.snmp_community"]}'
    ),
    'filters': _(
        'Subscribe to a list: the part after the ? in the address of its list in NetBox. A ? alone stands for the '
        'list of all objects. An object that enters the list is sent as created, one that leaves it as deleted, and '
        'others not at all. Imports: one filter per line, such as dcim.device: status=active. API: a JSON object.'
    ),
    'only_real_changes': _(
        'An update is sent only if a value, a tag or a link of the object has changed. The time of the last '
        'update and counters do not count. If this is off, every save is sent, even one that changes nothing.'
    ),
    'only_if_changed': _(
        'An update is sent only if one of these keys has changed. Keys of the payload, separated by commas. '
        'Example: status, site.slug, custom_fields.owner. Creations and deletions are always sent.'
    ),
    'include_components': _(
        'For devices, modules and virtual machines. A change of an interface, port or address is also sent as an '
        'update of its device. If this is off, only changes of the device itself are sent.'
    ),
    'include_config_contexts': _(
        'For devices and virtual machines. If a config context, its assignment, or a region, group or parent '
        'changes, each object whose context data changes is sent as an update, after other changes.'
    ),
    'max_attempts': _(
        'Number of attempts before a delivery fails for good. Waits between attempts: 5 s, 30 s, 2 min, 10 min, '
        '1 h, 3 h, then always 6 h. With 1, a failed delivery is not retried automatically.'
    ),
    'quiet': _(
        'Seconds. Changes of an object wait until it has not changed for this long. Then they are sent as one. '
        'Leave blank to send them at once.'
    ),
    'http_content_type': _('Value of the Content-Type header.'),
    'payload_format': _('Format of the body. Not used with a body template.'),
    'client_cert_path': _('Only if the receiver asks for a client certificate. The file may also contain the key.'),
    'client_key_path': _('Leave blank if the key is in the client certificate file.'),
}

_MASKED = 'a match would tell what is masked'
_LONG = 'a text of many lines'
_OF_ONE = 'belongs to one endpoint'
_NETBOX = 'NetBox has it on every page'
_OF_TYPES = 'belongs to the object types'
_LIST = 'a list of texts'
_TEXTS = {
    **dict.fromkeys(('body_template', 'conditions', 'success_conditions', 'filters', 'fields', 'omit'), _LONG),
    **dict.fromkeys(('expand', 'only_if_changed'), _LIST),
}
_SECRETS = dict.fromkeys(('payload_url', 'additional_headers', 'secret'), _MASKED)
_FILES = dict.fromkeys(('ca_file_path', 'client_cert_path', 'client_key_path'), _OF_ONE)
# {place: {field: why the place leaves it out}}
LEFT_OUT = {
    'bulk edit': {
        'name': 'unique',
        'tags': _NETBOX,
        'object_types': 'would replace all of them: the import does that',
        **dict.fromkeys(('additional_headers', 'body_template', 'conditions', 'success_conditions'), _OF_ONE),
        **dict.fromkeys(
            ('filters', 'expand', 'fields', 'omit', 'only_if_changed', 'include_config_contexts'), _OF_TYPES
        ),
    },
    'form': {},
    'import': {},
    'export': {},
    'filters': {**_SECRETS, **_TEXTS},
    'list': {
        'secret': 'encrypted',
        'additional_headers': 'encrypted',
        'ignore_users': 'a query for each row',
        **_TEXTS,
        **_FILES,
    },
    'cards': {
        'body_template': 'a card of its own',
        'conditions': 'a card of its own',
        'success_conditions': 'a card of its own',
        'fields': 'a card of its own',
        'omit': 'a card of its own',
        'tags': 'a card of its own',
        **dict.fromkeys(KINDS, 'in one line'),
        'enabled': 'the state says it',
        'paused': 'the state says it',
    },
    'API': {},
    'GraphQL': {'secret': 'write-only'},
    'GraphQL filters': {**_SECRETS, **_TEXTS, **_FILES},
    'copy': {
        'name': 'unique',
        'enabled': 'a copy begins as a new webhook does',
        'paused': 'a copy begins as a new webhook does',
        'secret': 'a copy is made by a link, which shows what is in it',
        'additional_headers': 'a copy is made by a link, which shows what is in it',
        'client_cert_path': _OF_ONE,
        'client_key_path': _OF_ONE,
    },
    'help': {
        'name': 'says it all',
        'description': 'says it all',
        'http_method': 'says it all',
        'tags': 'the model has one, for a text with commas',
    },
    'docs': {},
}


def shown_in(place: str) -> tuple[str, ...]:
    """Return the names of the fields that a place shows, in the order of the groups. `place` is a key of LEFT_OUT."""
    return tuple(name for name in NAMES if name not in LEFT_OUT[place])


def field(name: str) -> Field:
    """Return the model's field of this name."""
    return Webhook._meta.get_field(name)


def is_switch(name: str) -> bool:
    """Whether the field is true or false."""
    return isinstance(field(name), BooleanField)


def json_names() -> list[str]:
    """Return the names of the fields that are entered as JSON."""
    return [name for name in NAMES if isinstance(field(name), JSONField) and name != 'filters']


def label(name: str) -> str:
    """Return the field's label, such as 'Payload format'."""
    return capfirst(field(name).verbose_name)


def help_of(name: str) -> str:
    """Return the help for forms and the REST API: MORE_HELP's or the model's. '' if the field needs none."""
    return '' if name in LEFT_OUT['help'] else MORE_HELP.get(name) or field(name).help_text


def _is_chosen(webhook: Webhook, name: str) -> bool:
    if name in FORM_ONLY:
        return False
    if field(name).many_to_many:
        return bool(webhook.pk) and getattr(webhook, name).exists()
    value, default = getattr(webhook, name), field(name).get_default()
    return value != default and bool(value or default)
