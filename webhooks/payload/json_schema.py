"""Makes the JSON Schema (2020-12) of payloads, from NetBox's OpenAPI description.

NetBox's answers differ from it:

- blank choices, blank columns and sums over nothing are null;
- related objects list null twice, but `oneOf` wants one match;
- deleted objects outside the change log have only an id;
- `url` has no host: it is no URI;
- bounds are numbers, not text;
- fields that the model lacks are missing.
"""

import re
import threading
from collections.abc import Collection
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Model
from django.urls import path
from django.utils import translation
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from rest_framework.fields import Field, empty
from utilities.api import get_serializer_for_model

from ..choices import OBJECT_KINDS, PING_KIND, FormatChoices
from ..models import Webhook
from ..rendering.expansion import Tree, tree_of
from ..rendering.keys import targets
from ..rendering.serializer import api_view
from . import selection
from .formats import SEQUENCE_DIGITS
from .selection import Selection

DIALECT = 'https://json-schema.org/draft/2020-12/schema'
# OpenAPI 3.1 uses JSON Schema 2020-12, 3.0 does not.
OPENAPI_SETTINGS = {'OAS_VERSION': '3.1.1'}
# They apply to the process. If two threads set them at once, NetBox's own description would keep them.
SETTING = threading.Lock()
# References begin so in OpenAPI, and in our schemas.
COMPONENTS_PREFIX = '#/components/schemas/'
DEFINITIONS_PREFIX = '#/$defs/'
# Keywords for requests or client generators.
DROPPED_KEYWORDS = ('readOnly', 'writeOnly', 'x-spec-enum-id', 'description')

# Names of sums, which are null over nothing.
SUM_NAMES = re.compile('allocated_.*')

Schema = dict[str, Any]

# Parts of schemas. GONE is a nested object that was deleted, MERGE the keys that a branch's merge adds.
TEXT: Schema = {'type': 'string'}
TEXT_OR_NULL: Schema = {'type': ['string', 'null']}
UUID: Schema = {'type': 'string', 'format': 'uuid'}
UUID_OR_NULL: Schema = {**UUID, **TEXT_OR_NULL}
TIME: Schema = {'type': 'string', 'format': 'date-time'}
NUMBERED: Schema = {'type': 'integer', 'minimum': 1}
TRUE: Schema = {'const': True}
MEMBERSHIP: Schema = {'enum': ['entered', 'left']}
NAMES: Schema = {'type': 'array', 'items': TEXT, 'minItems': 1}
GONE: Schema = {
    'type': 'object',
    'properties': {'id': {'type': 'integer'}, 'url': TEXT, 'display': TEXT},
    'required': ['id', 'display'],
    'additionalProperties': {'enum': [None, []]},
}
ID_ALONE: Schema = {'type': 'object', 'properties': {'id': {'type': 'integer'}}, 'additionalProperties': False}
BRANCH: Schema = {
    'branch': {'type': 'object', 'properties': {'id': {'type': 'integer'}, 'name': TEXT}, 'required': ['id', 'name']}
}
MERGE: Schema = {'type': 'object', 'properties': {'id': TEXT, **BRANCH}, 'required': ['id', 'branch']}
# Keys that some events have: in all formats but netbox, and in the formats default and thin.
FLAGS: Schema = {'test': TRUE, 'backfill': TRUE, 'membership': MEMBERSHIP}
NOTES: Schema = {**FLAGS, 'transaction': MERGE, 'changelog_message': TEXT, 'caused_by': NAMES}


class NoSchema(Exception):
    """The model has no page in the REST API, so NetBox does not describe it. str() names the model."""


def of_types(webhook: Webhook) -> Schema:
    """Return the schema of a webhook's bodies with objects of any of its types. {} describes no body more closely.

    That is the schema of a webhook with a body template, or without object types, and of a type that NetBox does not
    describe.
    """
    models = [one.model_class() for one in webhook.object_types.order_by('app_label', 'model')]
    described = [] if webhook.body_template else [of_webhook(webhook, model) for model in models if model]
    if len(described) <= 1:
        return described[0] if described else {}
    # With an `$id` each is a resource of its own, so that its references lead to its own `$defs`.
    parts = [{'$id': f'urn:webhook:{webhook.pk}:{number}', **one} for number, one in enumerate(described, 1)]
    return {'$schema': DIALECT, 'title': webhook.name, 'anyOf': parts}


def of_webhook(webhook: Webhook, model: type[Model]) -> Schema:
    """Return the schema of a webhook's bodies with objects of this model, without regard to a body template.

    {} if NetBox does not describe the model.
    """
    try:
        return payload(
            model,
            webhook.payload_format,
            change_set=webhook.change_set,
            expand=webhook.expand,
            selected=selection.of(webhook, model._meta.label_lower),
            is_list=model._meta.label_lower in webhook.filters,
        )
    except NoSchema:
        return {}


def payload(
    model: type[Model],
    payload_format: str,
    *,
    change_set: bool = False,
    expand: Collection[str] = (),
    selected: Selection | None = None,
    is_list: bool = False,
) -> Schema:
    """Return the schema of a webhook's bodies with objects of this model. Raises NoSchema.

    `expand` holds the keys to show in full. They may also stay brief, as deleted objects do. `selected` says which
    keys are sent, if not all. If the webhook subscribes to a list (`is_list`), an object that was deleted without an
    event has only its id. Objects of other models in a change set may have any keys. So may a ping.
    """
    definitions = _definitions(model)
    _expand(definitions, definitions['data'], model, tree_of(expand), '')
    if selected:
        definitions['data'] = _select(definitions, definitions['data'], selected)
    if is_list:
        definitions['data'] = {'anyOf': [definitions['data'], ID_ALONE]}
    label = f'{model._meta.app_label}.{model._meta.model_name}'
    title = f'{label}, format {payload_format}' + (', change set' if change_set else '')
    shape = SHAPES[payload_format](model, label)
    shape = _change_set(shape, payload_format) if change_set else {'anyOf': [shape, PINGS[payload_format]]}
    return {'$schema': DIALECT, 'title': title, **shape, '$defs': definitions}


# The formats: $defs holds `data` and nested objects.

DATA: Schema = {'$ref': f'{DEFINITIONS_PREFIX}data'}
SNAPSHOTS: Schema = {'$ref': f'{DEFINITIONS_PREFIX}snapshots'}
DIFFERENCES: Schema = {'$ref': f'{DEFINITIONS_PREFIX}differences'}


def _change(model: type[Model], label: str) -> Schema:
    """Return the keys that the formats default and thin have in common."""
    return {
        'event': {'enum': list(OBJECT_KINDS)},
        'signal_received_timestamp': {'type': 'number'},
        'model': {'const': model.__name__},
        'object_type': {'const': label},
        'id': UUID,
        'sequence': NUMBERED,
        'username': TEXT_OR_NULL,
        'request_id': UUID_OR_NULL,
    }


def _default(model: type[Model], label: str) -> Schema:
    more = {'snapshots': SNAPSHOTS, 'differences': DIFFERENCES, 'partial': NAMES}
    return _object({**_change(model, label), 'data': DATA}, optional=NOTES | more)


def _netbox(model: type[Model], label: str) -> Schema:
    request = {'id': UUID, 'path': TEXT, 'path_info': TEXT, 'method': TEXT, 'GET': {'type': 'object'}, 'user': TEXT}
    return _object(
        {
            'event': {'enum': list(OBJECT_KINDS)},
            'timestamp': TIME,
            'object_type': {'const': label},
            'data': DATA,
            'snapshots': SNAPSHOTS,
        },
        optional={
            'request': _object(request),
            'context': {'type': 'object'},
            'membership': MEMBERSHIP,
            'transaction': MERGE,
            'differences': DIFFERENCES,
            'caused_by': NAMES,
        },
    )


def _cloudevents(model: type[Model], label: str) -> Schema:
    with_snapshots = _object({'object': DATA, 'snapshots': SNAPSHOTS, 'differences': DIFFERENCES})
    return _object(
        {
            'specversion': {'const': '1.0'},
            'id': UUID,
            'source': {'type': 'string', 'format': 'uri-reference'},
            'type': {'enum': [f'netbox.{label}.{kind}' for kind in OBJECT_KINDS]},
            'subject': TEXT,
            'time': TIME,
            'datacontenttype': {'const': 'application/json'},
            'partitionkey': TEXT,
            'sequence': {'type': 'string', 'pattern': f'^[0-9]{{{SEQUENCE_DIGITS}}}$'},
            'data': {'anyOf': [DATA, with_snapshots]},
        },
        optional={
            'username': TEXT,
            'requestid': UUID,
            'changelogmessage': TEXT,
            'causedby': TEXT,
            'traceparent': TEXT,
            'tracestate': TEXT,
            'branch': TEXT,
            'branchid': {'type': 'integer'},
            **FLAGS,
        },
    )


def _thin(model: type[Model], label: str) -> Schema:
    reference = {
        'object_id': {'type': ['integer', 'null']},
        'url': TEXT_OR_NULL,
        'changed': {'type': ['array', 'null'], 'items': TEXT},
    }
    return _object(_change(model, label) | reference, optional=NOTES)


def _change_set(shape: Schema, payload_format: str) -> Schema:
    numbers = {'part': NUMBERED, 'parts': NUMBERED}
    if payload_format == FormatChoices.CLOUDEVENTS:
        numbers['transactioncount'] = NUMBERED
        shape['properties'] |= {'transaction': TEXT, **numbers}
        shape['required'] += numbers
        return {'type': 'array', 'items': _of_any_model(shape, 'type'), 'minItems': 1}
    transaction = {
        'id': TEXT_OR_NULL,
        'username': TEXT_OR_NULL,
        'request_id': UUID_OR_NULL,
        'message': TEXT_OR_NULL,
        'count': NUMBERED,
    }
    changes = {'type': 'array', 'items': _of_any_model(shape, 'object_type'), 'minItems': 1}
    return _object(
        {'event': {'const': 'change_set'}, 'transaction': _object(transaction, BRANCH), **numbers, 'changes': changes}
    )


def _of_any_model(shape: Schema, name: str) -> Schema:
    """Return a schema that applies `shape` to objects of its model only.

    `name` is the key that names the model.
    """
    of_model = {'type': 'object', 'properties': {name: shape['properties'][name]}, 'required': [name]}
    return {'if': of_model, 'then': shape, 'else': {'type': 'object'}}


SHAPES = {
    FormatChoices.DEFAULT: _default,
    FormatChoices.NETBOX: _netbox,
    FormatChoices.CLOUDEVENTS: _cloudevents,
    FormatChoices.THIN: _thin,
}


def _ping(name: str, value: str) -> Schema:
    """Return the schema of a test for which there is no object: the key `name` has this value."""
    return {'title': 'ping', 'type': 'object', 'properties': {name: {'const': value}}, 'required': [name]}


PINGS = {
    **dict.fromkeys(SHAPES, _ping('event', PING_KIND)),
    FormatChoices.CLOUDEVENTS: _ping('type', f'netbox.webhooks.webhook.{PING_KIND}'),
}


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {'type': 'object', 'properties': {**required, **(optional or {})}, 'required': list(required)}


# From OpenAPI.


def keys_of(model: type[Model]) -> dict[str, str]:
    """Return {key of the model's data: its type}, such as 'string|null'. Nested keys have dots. Raises NoSchema."""
    definitions = _definitions(model)
    found: dict[str, set[str]] = {}
    _collect(definitions, definitions['data'], '', found)
    return {key: '|'.join(sorted(types)) for key, types in sorted(found.items())}


def _collect(definitions: Schema, schema: Schema, path: str, found: dict[str, set[str]]) -> None:
    """Add the types of a schema and of its keys. An object in a list counts as if it stood alone."""
    if '$ref' in schema:
        if schema['$ref'] != f'{DEFINITIONS_PREFIX}gone':
            _collect(definitions, definitions[schema['$ref'].removeprefix(DEFINITIONS_PREFIX)], path, found)
        return
    for one in schema.get('anyOf', ()):
        _collect(definitions, one, path, found)
    if path and 'type' in schema:
        types = schema['type'] if isinstance(schema['type'], list) else [schema['type']]
        found.setdefault(path, set()).update(types)
    if 'items' in schema:
        # The key's own type is `array`.
        items: dict[str, set[str]] = {}
        _collect(definitions, schema['items'], path, items)
        found |= {key: types for key, types in items.items() if key != path}
    for name, below in schema.get('properties', {}).items():
        key = f'{path}.{name}' if path else name
        found.setdefault(key, set())
        _collect(definitions, below, key, found)


def _definitions(model: type[Model]) -> Schema:
    """Return `$defs`: `data` as GET shows it, the nested objects, and our own parts."""
    with translation.override(settings.LANGUAGE_CODE):  # as payloads are, in whatever language somebody reads this
        described = _describe(model)
        components = {name: _translate(schema) for name, schema in described['components']['schemas'].items()}
    (response,) = described['paths'].values()
    reference = response['get']['responses']['200']['content']['application/json']['schema']['$ref']
    data = components.pop(reference.removeprefix(COMPONENTS_PREFIX))
    for name in _never_shown(model):
        data['properties'].pop(name, None)
    for name in data['properties'].keys() & _blank_columns(model):
        data['properties'][name] = _or_null(data['properties'][name])
    state, fields = {'type': ['object', 'null']}, {'type': 'object'}
    changed = {'type': 'object', 'additionalProperties': {'type': 'array', 'minItems': 2, 'maxItems': 2}}
    return {
        # The REST API always shows all keys.
        'data': {**data, 'required': list(data['properties'])},
        # If the webhook asked for them after the change, nobody has kept them.
        'snapshots': {**_object({'prechange': state, 'postchange': state}), 'type': ['object', 'null']},
        'differences': {
            **_object({'added': fields, 'removed': fields, 'changed': changed}),
            'type': ['object', 'null'],
        },
        'gone': GONE,
        **{name: {'anyOf': [schema, {'$ref': f'{DEFINITIONS_PREFIX}gone'}]} for name, schema in components.items()},
    }


def _expand(definitions: Schema, data: Schema, model: type[Model], tree: Tree, path: str) -> None:
    """Add the definitions of expanded objects, and let `data` hold them in full. Changes both.

    A key for any model already allows any object.
    """
    for name, below in tree.items():
        target = targets(model).get(name)
        if target in (None, Model) or name not in data['properties']:
            continue
        described = _definitions(target)
        whole = described.pop('data')
        definitions |= {key: schema for key, schema in described.items() if key not in definitions}
        definitions[f'{path}{name}'] = whole
        data['properties'][name] = _or_whole(data['properties'][name], {'$ref': f'{DEFINITIONS_PREFIX}{path}{name}'})
        _expand(definitions, whole, target, below, f'{path}{name}.')


def _select(definitions: Schema, schema: Schema, selected: Selection) -> Schema:
    """Return the schema of an object, or of a list of objects, without the keys that are not sent."""
    if not selected.tree:
        return schema
    if '$ref' in schema:
        return _select(definitions, definitions[schema['$ref'].removeprefix(DEFINITIONS_PREFIX)], selected)
    if 'anyOf' in schema:
        return {**schema, 'anyOf': [_select(definitions, one, selected) for one in schema['anyOf']]}
    if 'items' in schema:
        return {**schema, 'items': _select(definitions, schema['items'], selected)}
    if 'properties' not in schema:
        return schema
    properties = {
        name: _select(definitions, schema['properties'][name], selected._replace(tree=selected.tree.get(name, {})))
        for name in selected.of({key: {} for key in schema['properties']})
    }
    required = [name for name in schema.get('required', ()) if name in properties]
    return {**schema, 'properties': properties, 'required': required}


def _or_whole(schema: Schema, whole: Schema) -> Schema:
    if schema.get('type') == 'array':
        return {**schema, 'items': _or_whole(schema['items'], whole)}
    return {'anyOf': [whole, schema]}


def _never_shown(model: type[Model]) -> list[str]:
    """Return the names of fields that the REST API skips, as the model lacks their source."""
    fields = get_serializer_for_model(model)().fields
    return [name for name, field in fields.items() if _may_be_skipped(field) and not _has_source(model, field)]


def _blank_columns(model: type[Model]) -> set[str]:
    """Return the names of fields whose column may be null, or a choice left blank, though NetBox says otherwise."""
    fields = get_serializer_for_model(model)().fields
    columns = {one.name: one.null or (one.blank and bool(one.choices)) for one in model._meta.concrete_fields}
    return {name for name, field in fields.items() if columns.get(field.source) and not field.allow_null}


def _or_null(schema: Schema) -> Schema:
    return schema if 'null' in schema.get('type', ()) else {'anyOf': [schema, {'type': 'null'}]}


def _may_be_skipped(field: Field) -> bool:
    return not (field.read_only or field.required or field.allow_null) and field.default is empty


def _has_source(model: type[Model], field: Field) -> bool:
    return field.source == '*' or hasattr(model, field.source.split('.')[0])


def _describe(model: type[Model]) -> Schema:
    """Return NetBox's OpenAPI description of GET for an object of the model. Raises NoSchema.

    Only that: all of NetBox takes half a minute.
    """
    view = api_view(model)
    if view is None:
        raise NoSchema(f'{model._meta.label_lower} has no page in the REST API')
    patterns = [path('object/<int:pk>/', view.as_view({'get': 'retrieve'}))]
    with SETTING, patched_settings(OPENAPI_SETTINGS), GENERATOR_STATS.silence():
        return SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)


def _translate(node: Any) -> Any:
    """Return a part of the OpenAPI description as JSON Schema, with NetBox's answers in mind."""
    if isinstance(node, list):
        return [_translate(item) for item in node]
    if isinstance(node, Decimal):
        return float(node)
    if not isinstance(node, dict):
        return str(node) if _is_lazy(node) else node
    if isinstance(node.get('properties'), dict):
        return _translate_object(node)
    translated = {key: _translate(value) for key, value in node.items() if key not in DROPPED_KEYWORDS}
    if 'oneOf' in translated:
        translated['anyOf'] = _distinct(translated.pop('oneOf'))
    if translated.get('format') == 'uri':
        translated['format'] = 'uri-reference'
    if '$ref' in translated:
        translated['$ref'] = translated['$ref'].replace(COMPONENTS_PREFIX, DEFINITIONS_PREFIX)
    return translated


def _translate_object(node: Schema) -> Schema:
    """Return the description of an object as JSON Schema.

    Its properties may have the names of keywords, so they are translated by themselves.
    """
    rest = {key: value for key, value in node.items() if key != 'properties'}
    properties = {name: _translate(value) for name, value in node['properties'].items()}
    for name in filter(SUM_NAMES.fullmatch, properties):
        properties[name] = _or_null(properties[name])
    translated = {**_translate(rest), 'properties': properties}
    if properties.keys() == {'value', 'label'} and '' in properties['value'].get('enum', ()):
        translated['type'] = ['object', 'null']
    return translated


def _distinct(schemas: list[Schema]) -> list[Schema]:
    return [schema for position, schema in enumerate(schemas) if schema not in schemas[:position]]


def _is_lazy(node: Any) -> bool:
    return not isinstance(node, str | int | float | bool | None)
