"""Plans the changes of a document, and applies all of them or none."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from core.signals import clear_events
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, ProtectedError
from django.http import HttpRequest
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import empty
from utilities.api import get_serializer_for_model
from utilities.exceptions import AbortRequest

from ..engine import sql
from ..exceptions import DecryptionError, DefinitionError
from ..models import Webhook
from ..models.fields import MaskedUrl, Sealed
from ..security import references, signing
from ..security.masking import MASK, mask_template
from ..storable import nodes
from ..validation.headers import parse_headers
from .document import FIELDS, SECTIONS, Document, DocumentError, Entry

# Values of these fields are secret: a plan says only that they changed.
SECRET_FIELDS = ('secret', 'additional_headers')
# {field of an entry: the key of the related objects that it names}
NATURAL_KEYS = {'credential': 'name', 'tags': 'slug', 'ignore_users': 'username', 'notification_groups': 'name'}
# {field of a serializer's valid data: the document's name for it}
CUSTOM_FIELDS = {'custom_field_data': 'custom_fields'}
# Let other applies wait until the transaction ends: two that create the same name would end in an error. The number is
# "weba" in ASCII.
LOCK_APPLY = f'SELECT pg_advisory_xact_lock({0x77656261})'
# A longer path with its line is cut at its beginning.
MAX_PLACE_CHARS = Webhook._meta.get_field('managed_in').max_length
CREATED, CHANGED, DELETED = 'created', 'changed', 'deleted'
SIGNS = {CREATED: '+', CHANGED: '~', DELETED: '-'}


@dataclass
class Change:
    """A change to a webhook or a credential. `fields`: {name: [before, after]}, masked, if it existed already."""

    section: str
    name: str
    outcome: str
    fields: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the name of the action, for people."""
        return {CREATED: _('Create'), CHANGED: _('Change'), DELETED: _('Delete')}[self.outcome]

    def lines(self) -> list[str]:
        """Return the change as text for people: a line for the object, then one for each changed field."""
        head = f'{SIGNS[self.outcome]} {self.section}: {self.name}'
        return [head, *(f'    {name}: {before!r} → {after!r}' for name, (before, after) in self.fields.items())]


class _Undo(Exception):
    """Ends the transaction of a plan."""


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Run the block in a transaction. If it fails, NetBox's event rules do not act on its changes."""
    try:
        with transaction.atomic():
            yield
    except Exception:
        clear_events.send(sender=None)
        raise


def plan(documents: Sequence[Document], *, prune: bool = False, request: HttpRequest | None = None) -> list[Change]:
    """Return the changes that apply() would make. They are made and undone, to find the same errors.

    Raises DocumentError, and PermissionDenied.
    """
    changes: list[Change] = []
    with suppress(_Undo), _all_or_nothing():
        changes += apply(documents, prune=prune, request=request)
        raise _Undo
    return changes


@_all_or_nothing()
def apply(documents: Sequence[Document], *, prune: bool = False, request: HttpRequest | None = None) -> list[Change]:
    """Create and change webhooks and credentials as the documents say. Return the changes.

    With `prune`, objects of the documents' sources that no document names any more are deleted. With a request, its
    user needs the permissions for each. Raises DocumentError, and PermissionDenied.
    """
    _check_names(documents)
    sql.execute(LOCK_APPLY)
    writer = _Writer(request)
    for section in SECTIONS:
        for document in documents:
            for entry in document.entries:
                if entry.section == section:
                    writer.write(entry, document.source)
    if prune:
        writer.prune(documents)
    return writer.changes


def _check_names(documents: Sequence[Document]) -> None:
    names: set[tuple[str, str]] = set()
    for entry in (entry for document in documents for entry in document.entries):
        if (entry.section, entry.name) in names:
            raise entry.error('name', _('"{name}" is in the document twice').format(name=entry.name))
        names.add((entry.section, entry.name))


class _Writer:
    def __init__(self, request: HttpRequest | None) -> None:
        self.changes: list[Change] = []
        self._request = request

    def write(self, entry: Entry, source: str) -> None:
        """Create or update one object from its entry."""
        model = SECTIONS[entry.section]
        stored = model.objects.select_for_update(no_key=True).filter(name=entry.name).first()
        self._check(model, stored, 'change', entry)
        # Validating changes the instance.
        instance = model.objects.get(pk=stored.pk) if stored else None
        # Without a request too, the key has to be there: custom fields that name objects ask for it.
        context = {'request': self._request}
        serializer = get_serializer_for_model(model)(instance, data=_data(entry, stored), context=context)
        try:
            serializer.is_valid(raise_exception=True)
            differences = _differences(stored, serializer.validated_data) if stored else {}
            if not stored or differences:
                if stored:
                    # Validating has changed the instance: its own snapshot would be that of the new values.
                    stored.snapshot()
                    instance._prechange_snapshot = stored._prechange_snapshot
                instance = serializer.save()
        except ValidationError as error:
            raise _refusal(entry, error) from None
        except AbortRequest as refusal:  # of a tag that is for other object types, for example
            raise entry.error('', str(refusal)) from None
        self._check(model, instance, 'change' if stored else 'add', entry)
        if not stored or differences:
            self.changes.append(Change(entry.section, entry.name, CHANGED if stored else CREATED, differences))
        kept = {'managed_by': source, 'managed_in': entry.place()[-MAX_PLACE_CHARS:]}
        if any(getattr(instance, name) != value for name, value in kept.items()):
            # Where the entry stands is no change of the definition: it leaves no trace in the change log.
            model.objects.filter(pk=instance.pk).update(**kept)

    def prune(self, documents: Sequence[Document]) -> None:
        """Delete objects that the same sources made earlier and name no longer. Webhooks go first."""
        for section, model in reversed(SECTIONS.items()):
            named = [entry.name for document in documents for entry in document.entries if entry.section == section]
            old = model.objects.filter(managed_by__in={document.source for document in documents})
            for instance in old.exclude(name__in=named).order_by('name'):
                name = instance.name if self._may(model, instance, 'view') else MASK
                self._check(model, instance, 'delete', Entry(section, {'name': name}))
                self.changes.append(Change(section, instance.name, DELETED))
                self._delete(instance, section)

    def _delete(self, instance: Model, section: str) -> None:
        try:
            if self._request:
                instance.snapshot()
            instance.delete()
        except ProtectedError:
            reason = _('"{name}" is in use, and cannot be deleted').format(name=instance)
            raise DocumentError(reason, section) from None
        except AbortRequest as refusal:  # of a protection rule
            raise DocumentError(str(refusal), section) from None

    def _check(self, model: type[Model], instance: Model | None, action: str, entry: Entry) -> None:
        """Raise PermissionDenied unless the request's user may do this with the object."""
        if instance is not None and not self._may(model, instance, action):
            reason = _('{place}: you may not {action} "{name}".')
            raise PermissionDenied(reason.format(place=entry.place(), action=action, name=entry.name))

    def _may(self, model: type[Model], instance: Model, action: str) -> bool:
        if self._request is None:
            return True
        return model.objects.restrict(self._request.user, action).filter(pk=instance.pk).exists()


def _data(entry: Entry, stored: Model | None) -> dict[str, Any]:
    """Return the entry as the REST API takes it: a field that is left out has its default, a secret is kept."""
    given = entry.fields
    data: dict[str, Any] = {'name': entry.name}
    for name in FIELDS[entry.section]:
        if name in NATURAL_KEYS:
            data[name] = _related(entry, name)
        elif name == 'secret':
            data |= _secret(entry, stored)
        elif name == 'additional_headers':
            data[name] = _headers(entry)
        elif name in given:
            data[name] = given[name]
        elif name != 'custom_fields':
            data[name] = default_of(SECTIONS[entry.section], name)
    return data


def default_of(model: type[Model], name: str) -> Any:
    """Return the value that a document means if it leaves the field out. `empty`: none, and the field is required."""
    field = model._meta.get_field(name)
    if field.many_to_many:
        return []
    return field.get_default() if field.blank or field.has_default() else empty


def _related(entry: Entry, name: str) -> Any:
    """Return the related objects that a field names, as the serializer takes them. Raises DocumentError."""
    key, value = NATURAL_KEYS[name], entry.fields.get(name)
    if name == 'credential':
        return value if value in (None, '') else {key: _text(entry, name, value)}
    if not isinstance(value or [], list):
        raise entry.error(name, _('enter a list'))
    related = SECTIONS[entry.section]._meta.get_field(name).related_model.objects
    wanted = [_text(entry, name, one) for one in value or ()]
    found = dict(related.filter(**{f'{key}__in': wanted}).values_list(key, 'pk'))
    for one in wanted:
        if one not in found:
            raise entry.error(name, _('there is no “{name}” here').format(name=one))
    return list(found.values())


def _text(entry: Entry, name: str, value: Any) -> str:
    """Return the value if it is a text. YAML takes `2024` for a number, and `no` for false. Raises DocumentError."""
    if not isinstance(value, str):
        raise entry.error(name, _('enter a text. Put numbers, yes and no in quotes'))
    return value


def _secret(entry: Entry, stored: Model | None) -> dict[str, Any]:
    """Return {'secret': text}, or {} to keep the stored one."""
    given = entry.fields.get('secret')
    if given is None:
        return {}
    if given == {'generate': True} and entry.section == 'webhooks':
        return {} if stored and stored.secret else {'secret': signing.generate(signing.SYMMETRIC)}
    return {'secret': _reference(entry, 'secret', given)}


def _headers(entry: Entry) -> str:
    """Return the lines of `additional_headers`: a mapping of names to values, to references, or to the mask."""
    given = entry.fields.get('additional_headers') or {}
    if not isinstance(given, dict):
        raise entry.error('additional_headers', _('enter a mapping of names to values'))
    lines = []
    for name, value in given.items():
        read = _reference if isinstance(value, dict) else _text
        text = read(entry, 'additional_headers', value)
        lines.append(f'{name}: {text}')
    return '\n'.join(lines)


def _reference(entry: Entry, name: str, given: Any) -> str:
    """Return {"env": NAME} or {"file": PATH} as the reference to store. Refuse a secret itself."""
    for key, prefix in (('env', references.VARIABLE), ('file', references.FILE)):
        if isinstance(given, dict) and given.keys() == {key} and references.is_reference(f'{prefix}{given[key]}'):
            return f'{prefix}{given[key]}'
    reason = _('a document holds no secret. Enter {{env: NAME}} or {{file: /path}}, or leave it out to keep it')
    raise entry.error(name, reason.format())


def _differences(stored: Model, wanted: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return {field: [before, after]} of the fields that validated data would change, masked."""
    found = {}
    hides_path = getattr(stored, 'secret_path', False) or wanted.get('secret_path', False)
    for name, value in wanted.items():
        before, after = _comparable(name, getattr(stored, name, None)), _comparable(name, value)
        if name in SECRET_FIELDS:
            after = _comparable(name, Sealed.of(value))
        if before != after:
            found[CUSTOM_FIELDS.get(name, name)] = [_shown(name, one, hides_path) for one in (before, after)]
    return found


def _comparable(name: str, value: Any) -> Any:
    """Return a value as the document writes it. Secrets are revealed, unless no key decrypts them."""
    if isinstance(value, Sealed | MaskedUrl):
        with suppress(DecryptionError, DefinitionError):
            # A form stores headers as somebody typed them, with a browser's ends of lines.
            text = value.reveal()
            return dict(parse_headers(text)) if name == 'additional_headers' else text
    if hasattr(value, 'all'):  # the manager of related objects
        value = list(value.all())
    if isinstance(value, list) and all(isinstance(one, Model) for one in value):
        return sorted({_key_of(name, one) for one in value})
    return _key_of(name, value) if isinstance(value, Model) else value


def _key_of(name: str, related: Model) -> str:
    return getattr(related, NATURAL_KEYS[name]) if name in NATURAL_KEYS else '.'.join(related.natural_key())


def _shown(name: str, value: Any, hides_path: bool) -> Any:
    if name in SECRET_FIELDS:
        return MASK if value else ''
    return mask_template(str(value), hides_path) if name == 'payload_url' else value


def _refusal(entry: Entry, error: ValidationError) -> DocumentError:
    """Return the error of the first field that the serializer refuses, with its line."""
    name, reasons = next(iter(error.detail.items())) if isinstance(error.detail, dict) else ('', error.detail)
    texts = (node for node in nodes(reasons) if isinstance(node, ErrorDetail))
    return entry.error('' if name == '__all__' else name, ' '.join(texts))
