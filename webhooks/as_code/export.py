"""Writes the document of the webhooks and credentials that are there. It holds no secret."""

import re
from collections.abc import Callable, Iterable
from datetime import date
from operator import attrgetter
from typing import Any

import yaml
from django.db.models import Model

from ..models import Credential, Webhook
from ..object_types import label_of
from ..security import references
from ..security.masking import MASK
from ..validation.headers import parse_headers
from .apply import NATURAL_KEYS, default_of
from .document import DEFAULT_SOURCE, FIELDS, SECTIONS

# Line ends of Unicode, which YAML would read as blanks.
LINE_END = re.compile(r'[\x85\u2028\u2029]')


def export(credentials: Iterable[Credential], webhooks: Iterable[Webhook], source: str = DEFAULT_SOURCE) -> str:
    """Return the document as YAML. Fields with their default are left out, as is a credential's stored secret."""
    found: dict[str, Any] = {'source': source}
    found['credentials'] = [entry_of(one) for one in credentials]
    found['webhooks'] = [entry_of(one) for one in webhooks]
    shown = {key: value for key, value in found.items() if value}
    return yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def entry_of(instance: Model) -> dict[str, Any]:
    """Return the entry of a webhook or a credential."""
    section = next(section for section, model in SECTIONS.items() if isinstance(instance, model))
    values = {name: _value(instance, name) for name in FIELDS[section]}
    return {name: value for name, value in values.items() if not _is_default(instance, name, value)}


def _value(instance: Model, name: str) -> Any:
    if name in APART:
        return APART[name](instance)
    value = getattr(instance, name)
    if key := NATURAL_KEYS.get(name):
        return value.name if isinstance(value, Model) else value and sorted(value.values_list(key, flat=True))
    return value.isoformat() if isinstance(value, date) else value


def _secret(instance: Model) -> Any:
    """Return the reference, or for a webhook that signs {"generate": true}: a new NetBox gets a secret of its own."""
    if reference := _reference(instance.secret.reveal_or_blank()):
        return reference
    return {'generate': True} if instance.secret and isinstance(instance, Webhook) else None


def _headers(webhook: Webhook) -> dict[str, Any]:
    lines = parse_headers(webhook.additional_headers.reveal_or_blank())
    return {name: _reference(value) or MASK for name, value in lines}


def _object_types(webhook: Webhook) -> list[str]:
    return sorted(label_of(one) for one in webhook.object_types.all())


def _custom_fields(instance: Model) -> dict[str, Any]:
    return {key: value for key, value in sorted(instance.custom_field_data.items()) if value is not None}


def _reference(text: str) -> dict[str, str] | None:
    if not references.is_reference(text):
        return None
    kind, _colon, rest = text.partition(':')
    return {kind: rest}


def _is_default(instance: Model, name: str, value: Any) -> bool:
    if name in APART:
        return not value
    return value == default_of(type(instance), name)


# Fields whose value is not that of their column.
APART: dict[str, Callable[[Any], Any]] = {
    'secret': _secret,
    'additional_headers': _headers,
    'payload_url': attrgetter('masked_url'),
    'object_types': _object_types,
    'custom_fields': _custom_fields,
}


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, but it escapes each LINE_END."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(
        yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, text, style='"' if LINE_END.search(text) else None
    )


_Dumper.add_representer(str, _text)
