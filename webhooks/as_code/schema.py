"""Makes the JSON Schema of a document, for editors and CI."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models

from ..payload.json_schema import DIALECT
from .apply import NATURAL_KEYS
from .document import FIELDS, MAX_SOURCE_CHARS, SECTIONS

Schema = dict[str, Any]
TEXT: Schema = {'type': 'string'}
TEXTS: Schema = {'type': 'array', 'items': TEXT}


def _one(key: str, schema: Schema) -> Schema:
    return {'type': 'object', 'properties': {key: schema}, 'required': [key], 'additionalProperties': False}


REFERENCES = [_one('env', TEXT), _one('file', TEXT)]
# Fields whose value is not that of their column.
SPECIAL: dict[str, Schema] = {
    'secret': {'anyOf': [*REFERENCES, _one('generate', {'const': True})]},
    'additional_headers': {'type': 'object', 'additionalProperties': {'anyOf': [TEXT, *REFERENCES]}},
    'custom_fields': {'type': 'object'},
    'credential': {'type': ['string', 'null']},
    'object_types': TEXTS,
    **{name: TEXTS for name in NATURAL_KEYS if name != 'credential'},
}


def document_schema() -> Schema:
    """Return the schema (2020-12) of a document, with the help of each field as its description."""
    properties: Schema = {'source': {'type': 'string', 'maxLength': MAX_SOURCE_CHARS}}
    for section, model in SECTIONS.items():
        fields = {name: _field(model, name) for name in FIELDS[section]}
        entry = {'type': 'object', 'properties': fields, 'required': ['name'], 'additionalProperties': False}
        properties[section] = {'type': 'array', 'items': entry}
    return {'$schema': DIALECT, 'type': 'object', 'properties': properties, 'additionalProperties': False}


def _field(model: type[models.Model], name: str) -> Schema:
    if name in SPECIAL:
        return SPECIAL[name]
    field = model._meta.get_field(name)
    schema = dict(_type(field))
    if field.null and 'type' in schema:
        schema['type'] = [schema['type'], 'null']
    if choices := [value for value, _label in field.flatchoices]:
        schema['enum'] = choices
    if field.help_text:
        schema['description'] = str(field.help_text)
    return schema


def _type(field: models.Field) -> Schema:
    if isinstance(field, models.BooleanField):
        return {'type': 'boolean'}
    if isinstance(field, models.IntegerField):
        return {'type': 'integer'}
    if isinstance(field, ArrayField):
        return TEXTS
    return {'type': 'object'} if isinstance(field, models.JSONField) else TEXT
