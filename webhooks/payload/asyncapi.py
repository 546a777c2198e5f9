"""Describes webhooks in an AsyncAPI 3 document: channels, keys, and schemas of the payloads."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address, registry
from ..models import Webhook
from ..object_types import label_of
from ..validation.headers import HEADER_NAME
from ..version import VERSION
from . import formats, json_schema
from .change_set import Part

Document = dict[str, Any]

# Characters that names of components cannot have.
UNFIT_IN_NAMES = re.compile(r'[^\w.-]')
# The host of a URL behind its scheme, with user and port.
HOST = re.compile('[^/?#]*')
# One expression of a template.
EXPRESSION = re.compile(r'\{\{(.*?)\}\}', re.DOTALL)
# The schema of any text.
TEXT: Document = {'type': 'string'}
UUID: Document = {'type': 'string', 'format': 'uuid'}


def document(webhooks: Iterable[Webhook]) -> Document:
    """Return the document of all enabled webhooks. Reads their object types, and shows only masked URLs.

    Feeds are left out, as readers ask for these.
    """
    parts = [_Channel(webhook) for webhook in webhooks if webhook.enabled and not webhook.is_feed]
    servers: Document = {}
    components: Document = {'messages': {}, 'schemas': {}}
    channels: Document = {}
    operations: Document = {}
    for part in parts:
        servers |= {part.server: part.server_object()}
        channels |= {part.name: part.channel(components)}
        operations |= {f'send-{part.name}': part.operation()}
    return {
        'asyncapi': '3.0.0',
        'info': {
            'title': f'NetBox at {settings.HOSTNAME}',
            'version': VERSION,
            'description': _('Changes of objects.'),
        },
        'servers': servers,
        'channels': channels,
        'operations': operations,
        'components': components,
    }


class _Channel:
    """A webhook as a channel. Only masked URLs are shown."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self.name = f'webhook-{webhook.pk}'
        self.place = address.split(webhook.masked_url)
        # Not by urlsplit(): it refuses brackets in a host's template, and ends the path at a template's question mark.
        scheme = address.SCHEME.match(webhook.masked_url)
        _scheme, _slashes, rest = webhook.masked_url.partition('://')
        self._path = rest.partition('/')[2]
        self._host = self.place.name if self.place else HOST.match(rest)[0] or 'unknown'
        self._protocol = scheme[1].lower() if scheme else 'http'

    @property
    def server(self) -> str:
        """Return the name of the channel's server in the document: protocol and host."""
        return UNFIT_IN_NAMES.sub('-', f'{self._protocol}-{self._host}')

    def server_object(self) -> Document:
        """Return the Server Object: host and protocol, or the broker's name and driver."""
        shown: Document = {'host': UNFIT_IN_NAMES.sub('-', self._host) if '{' in self._host else self._host}
        shown['protocol'] = self._protocol
        if self.place:
            shown['description'] = _('The broker {name} from the settings.').format(name=self.place.name)
        return shown

    def channel(self, components: Document) -> Document:
        """Return the Channel Object. Puts its messages and their schemas into `components`."""
        shown_address, parameters = _address(self._path if self.place else f'/{self._path}')
        messages = {}
        for object_type in self.webhook.object_types.order_by('app_label', 'model'):
            name = f'{self.name}.{label_of(object_type)}'
            components['messages'][name] = self._message(object_type, name, components['schemas'])
            messages[UNFIT_IN_NAMES.sub('-', label_of(object_type))] = {'$ref': f'#/components/messages/{name}'}
        shown: Document = {
            'title': self.webhook.name,
            'address': shown_address,
            'servers': [{'$ref': f'#/servers/{self.server}'}],
            'messages': messages,
        }
        if self.webhook.description:
            shown['description'] = self.webhook.description
        if parameters:
            shown['parameters'] = parameters
        if self.place and self.place.driver == 'amqp':
            exchange, _slash, key = self.place.address.partition('/')
            queue = {'is': 'queue', 'queue': {'name': key}}
            shown['bindings'] = {'amqp': {'is': 'routingKey', 'exchange': {'name': exchange}} if exchange else queue}
        return shown

    def operation(self) -> Document:
        """Return the Operation Object: NetBox sends to this channel."""
        return {'action': 'send', 'channel': {'$ref': f'#/channels/{self.name}'}, 'title': self.webhook.name}

    def _message(self, object_type: ContentType, name: str, schemas: Document) -> Document:
        """Return the Message Object for an object type. Puts its schemas into `schemas`."""
        webhook = self.webhook
        kinds = ', '.join(webhook.kinds)
        part = Part() if webhook.change_set else None
        shown: Document = {
            'name': label_of(object_type),
            'title': f'{label_of(object_type)}: {kinds}',
            'contentType': formats.content_type(webhook, part),
            'headers': {'type': 'object', 'properties': self._headers(key := self._key(object_type))},
        }
        if payload := self._payload(object_type, name, schemas):
            shown['payload'] = payload
        if self.place and self.place.driver == 'kafka':
            shown['bindings'] = {'kafka': {'key': key}}
        return shown

    def _key(self, object_type: ContentType) -> Document:
        """Return the schema of the messages' key."""
        webhook = self.webhook
        # A ping is about the webhook itself.
        types = f'({label_of(object_type)}|webhooks.webhook)'
        pattern = f'webhook:{webhook.pk}' if webhook.change_set else f'{types}:[0-9]+'
        return {'type': 'string', 'pattern': f'^{pattern}$'}

    def _headers(self, key: Document) -> Document:
        """Return {name: schema} of the headers that the webhook sends."""
        webhook = self.webhook
        shown = {'content-type': TEXT, 'user-agent': TEXT}
        names = (line.partition(':')[0].strip() for line in webhook.masked_headers.splitlines() if ':' in line)
        shown |= {name.lower(): TEXT for name in names if HEADER_NAME.fullmatch(name)}
        if webhook.standard_headers:
            shown |= {'webhook-id': UUID, 'webhook-timestamp': TEXT}
            if webhook.secret:
                shown['webhook-signature'] = TEXT
                if not webhook.public_key:
                    shown['x-hook-signature'] = TEXT
        if self.place:
            driver = registry.driver_class(self.place.driver)
            shown |= {name: schema for name, schema in ((driver.id_header, UUID), (driver.key_header, key)) if name}
        return shown

    def _payload(self, object_type: ContentType, name: str, schemas: Document) -> Document | None:
        """Return the schema of the payload, or None. Puts its definitions into `schemas`.

        A template may make any body, a model of a removed plugin has no payload, and NetBox does not describe each
        model.
        """
        webhook, model = self.webhook, object_type.model_class()
        schema = {} if webhook.body_template or model is None else json_schema.of_webhook(webhook, model)
        if not schema:
            return None
        definitions = schema.pop('$defs')
        schema.pop('$schema')
        names = {
            f'{json_schema.DEFINITIONS_PREFIX}{key}': f'{name}.{UNFIT_IN_NAMES.sub("-", key)}' for key in definitions
        }
        for key, definition in definitions.items():
            schemas[names[f'{json_schema.DEFINITIONS_PREFIX}{key}']] = _moved(definition, names)
        return _moved(schema, names)


def _moved(node: Any, names: Mapping[str, str]) -> Any:
    """Return the schema with its references to the document's components."""
    if isinstance(node, list):
        return [_moved(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _moved(value, names) for key, value in node.items()}
    if isinstance(reference := moved.get('$ref'), str) and reference in names:
        moved['$ref'] = f'#/components/schemas/{names[reference]}'
    return moved


def _address(path: str) -> tuple[str, Document]:
    """Return the address, with a name in place of each expression, and these names as parameters.

    Other tags of templates have no name: then the whole address is a single parameter.
    """
    parameters: Document = {}

    def name(found: re.Match[str]) -> str:
        expression = found[1].strip()
        wanted = re.sub(r'\W+', '_', expression).strip('_') or 'value'
        parameters[wanted] = {'description': f'{{{{ {expression} }}}}'}
        return f'{{{wanted}}}'

    shown = EXPRESSION.sub(name, path)
    if JINJA2_TEMPLATE_RE.search(shown):
        return '{address}', {'address': {'description': path}}
    return shown, parameters
