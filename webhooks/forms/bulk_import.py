"""The forms that import webhooks and credentials from CSV, JSON or YAML: one for the text, one for each record."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import yaml
from django import forms
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.forms import SimpleArrayField  # pyright: ignore[reportMissingImports]  (no stub)
from django.core.exceptions import ValidationError
from django.core.validators import EMPTY_VALUES
from django.db.models import BooleanField
from django.utils.translation import gettext_lazy as _
from extras.choices import WebhookHttpMethodChoices
from extras.models import NotificationGroup
from netbox.choices import ImportMethodChoices
from netbox.forms import NetBoxModelImportForm
from users.models import User
from utilities.forms.bulk_import import BulkImportForm
from utilities.forms.fields import CSVChoiceField, CSVModelChoiceField, CSVModelMultipleChoiceField

from .. import object_types
from ..choices import CredentialTypeChoices, FormatChoices
from ..exceptions import DefinitionError
from ..models import Credential, Webhook
from ..presentation import credential_fields
from ..presentation.fields import MORE_HELP, help_of, json_names, label, shown_in
from ..storable import is_flat, is_key, is_storable, nodes, printable
from ..validation.body import refuse_batch
from .definition import check_keys
from .form_fields import FiltersField, FlatDecoder
from .masked import MaskedFieldsMixin, SecretMixin

# Other types, such as a date of YAML, would crash a field. So they become text.
JSON_TYPES = str | int | float | list | dict
# In place of a column that a record does not have. Unlike None, it is not blank.
ABSENT_COLUMN = object()
# YAML aliases can repeat a value without limit. Therefore a record with more values than these is refused.
MAX_NODES_PER_RECORD = 100_000
# The form's field that holds the file, by the method of the import.
FILE_FIELDS = {ImportMethodChoices.UPLOAD: 'upload_file', ImportMethodChoices.DATA_FILE: 'data_file'}
# Words in a column of true and false, in lower case.
SWITCH_WORDS = {**dict.fromkeys(('true', 'yes', 'on', '1'), True), **dict.fromkeys(('false', 'no', 'off', '0'), False)}
YAML_MERGE_TAG = 'tag:yaml.org,2002:merge'

# A record, or the headers of a CSV file.
Columns = Mapping[str, Any] | None


class ImportedTextForm(BulkImportForm):
    """Reads an imported text into `cleaned_data['data']`, a list of records.

    Reports errors at which NetBox's form would crash.
    """

    def clean(self) -> None:
        if self.errors:
            return
        method = self.cleaned_data['import_method']
        if method in FILE_FIELDS and not self.cleaned_data.get(FILE_FIELDS[method]):
            raise ValidationError({FILE_FIELDS[method]: _('Choose a file.')})
        try:
            super().clean()
        except (csv.Error, KeyError, RecursionError, StopIteration, TypeError, ValueError) as error:
            raise ValidationError(_('The data cannot be read: %(error)s'), params={'error': error}) from None
        records = enumerate(self.cleaned_data.get('data', ()), start=1)
        if wrong := [error for number, record in records for error in _wrong(number, record)]:
            raise ValidationError(wrong)

    def _clean_yaml(self, data: str) -> list[Any]:
        """Refuse merge keys before parsing: nested ones grow without limit."""
        with suppress(yaml.YAMLError):  # NetBox's form reports the error
            if any(map(_is_merge, yaml.parse(data, Loader=yaml.SafeLoader))):
                raise ValidationError(
                    {self.data_field: _('YAML merge keys (<<) are not supported. Write out each record.')}
                )
        return super()._clean_yaml(data)


def _is_merge(event: yaml.Event) -> bool:
    if not isinstance(event, yaml.ScalarEvent):
        return False
    return event.tag == YAML_MERGE_TAG or (event.tag is None and event.implicit[0] and event.value == '<<')


def _wrong(number: int, record: Any) -> Iterator[ValidationError]:
    """Yield why this record cannot be imported: for itself, or for each of its fields."""
    if problem := _problem(record):
        yield ValidationError(problem, params={'number': number})
        return
    for name, value in record.items():
        if not is_storable([name, value]):
            reason = _('Record %(number)d, field %(name)s: remove the character that cannot be stored.')
            yield ValidationError(reason, params={'number': number, 'name': printable(name)})


def _problem(record: Any) -> str:
    """Return why a record cannot be imported, '' if it can. The text still needs the record's number."""
    if not isinstance(record, dict) or not all(isinstance(name, str) for name in record):
        return _('Record %(number)d is not a mapping. Write the name of each field with its value.')
    if not _is_small(record) or not is_flat(record):
        return _('Record %(number)d is too large, or nested too deeply.')
    if record.get('id') in EMPTY_VALUES or is_key(str(record['id'])):
        return ''
    return _('Record %(number)d, field id: enter a number.')


def _is_small(record: dict[str, Any]) -> bool:
    """Whether the record has MAX_NODES_PER_RECORD values at most."""
    try:
        return sum(1 for _node in islice(nodes(record), MAX_NODES_PER_RECORD + 1)) <= MAX_NODES_PER_RECORD
    except RecursionError:
        return False


class ObjectTypesField(forms.ModelMultipleChoiceField):
    """Takes labels such as 'dcim.site', as a list or with commas between them. Returns their content types.

    Raises ValidationError for types that webhooks may not send.
    """

    STATIC_CHOICES = True

    def clean(self, value: Any) -> list[ContentType]:
        labels = value if isinstance(value, list) else str(value or '').split(',')
        labels = [str(label).strip().lower() for label in labels if str(label).strip()]
        allowed = object_types.by_label()
        if unknown := [label for label in labels if label not in allowed]:
            raise ValidationError(
                _('Webhooks may not send %(label)s. See the setting allowed_models.'), params={'label': unknown[0]}
            )
        return [allowed[label] for label in labels]


class StrictImportForm(NetBoxModelImportForm):
    """The base of both forms for a record: reports unknown columns, and switches that are neither true nor false."""

    def __init__(self, *args, headers: Mapping[str, str | None] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.headers = headers or {}
        dotted = [(name, key) for name, key in self.headers.items() if key]
        self._unknown_headers = [f'{name}.{key}' for name, key in dotted if not self._find_by(name, key)]
        columns = self._meta.model._meta.concrete_fields
        # Left blank, these keep their value or take the default (`_filled`). So the form must not ask for one.
        self._needed = [one.name for one in columns if one.has_default() and not (one.null or callable(one.default))]
        self._switches = {one.name for one in columns if isinstance(one, BooleanField)} & self.fields.keys()
        for name in set(self._needed) & self.fields.keys():
            self.fields[name].required = False
        if self.is_bound:
            self._unknown_headers += sorted(self.data.keys() - self.fields.keys() - self.headers.keys())
            self.data = {**self.data, **self._filled(), **self._as_text(), **self._as_switches()}

    def clean(self) -> dict[str, Any] | None:
        for header in self._unknown_headers:
            self.add_error(None, _('Unknown column: {name}').format(name=header))
        for name in self.fields.keys() & self._switches:
            if isinstance(self.data.get(name), str):
                self.add_error(name, _('Enter true or false.'))
        return super().clean()

    def _find_by(self, name: str, key: str) -> bool:
        """Let a column such as ignore_users.email find objects by that key. Return False if they have no such key.

        NetBox's form would crash there.
        """
        queryset = getattr(self.fields.get(name), 'queryset', None)
        if queryset is None or key not in {column.name for column in queryset.model._meta.concrete_fields}:
            return False
        self.fields[name].to_field_name = key
        return True

    def _filled(self) -> dict[str, Any]:
        """Return values for blank columns that may not be null: the object's present ones, or defaults.

        A form would read blank as false or null. A column that is absent changes nothing in a saved object.
        """
        missing = None if not self.instance.pk else ABSENT_COLUMN
        blank = (name for name in self._needed if self.data.get(name, missing) in EMPTY_VALUES)
        return {name: getattr(self.instance, name) for name in blank}

    def _as_switches(self) -> dict[str, bool]:
        """Return true or false for switches that are given as words. A form would read "no" and "0" as true."""
        given = {name: self.data.get(name) for name in self._switches}
        words = {name: value.strip().lower() for name, value in given.items() if isinstance(value, str)}
        return {name: SWITCH_WORDS[word] for name, word in words.items() if word in SWITCH_WORDS}

    def _as_text(self) -> dict[str, str]:
        """Return as text the values whose type would crash their field, such as a number in place of a list."""
        kinds = CSVModelMultipleChoiceField, SimpleArrayField
        lists = {name for name, field in self.fields.items() if isinstance(field, kinds)}
        return {
            name: str(value)
            for name, value in self.data.items()
            if value is not None and not isinstance(value, str | list if name in lists else JSON_TYPES)
        }


def _without_batch(columns: Columns) -> Columns:
    return columns and {name: value for name, value in columns.items() if name != 'batch'}


class WebhookImportForm(MaskedFieldsMixin, StrictImportForm):
    """Adds a webhook, or changes a webhook by its `id`."""

    object_types = ObjectTypesField(
        label=label('object_types'),
        queryset=ContentType.objects.all(),
        required=False,
        help_text=_(
            'Object types separated by commas, encased with double quotes (e.g. "dcim.site,ipam.prefix"). Leave '
            'blank to send only what event rules send through this webhook.'
        ),
    )
    http_method = CSVChoiceField(label=label('http_method'), choices=WebhookHttpMethodChoices, required=False)
    payload_format = CSVChoiceField(
        label=label('payload_format'), choices=FormatChoices, required=False, help_text=help_of('payload_format')
    )
    credential = CSVModelChoiceField(
        label=label('credential'), queryset=Credential.objects.all(), required=False, to_field_name='name'
    )
    ignore_users = CSVModelMultipleChoiceField(
        label=label('ignore_users'),
        queryset=User.objects.all(),
        required=False,
        to_field_name='username',
        help_text=_('User names separated by commas, encased with double quotes'),
    )
    notification_groups = CSVModelMultipleChoiceField(
        label=label('notification_groups'),
        queryset=NotificationGroup.objects.all(),
        required=False,
        to_field_name='name',
        help_text=_('Names separated by commas, encased with double quotes'),
    )
    filters = FiltersField(label=label('filters'), required=False, help_text=help_of('filters'))
    secret = forms.CharField(label=label('secret'), required=False, help_text=help_of('secret'))

    class Meta:
        model = Webhook
        fields = shown_in('import')
        help_texts = MORE_HELP

    def __init__(self, data: Mapping[str, Any] | None = None, *args, headers: Columns = None, **kwargs):
        # Exports of 1.0.0 have this column.
        self._batch = (data or {}).get('batch', '')
        super().__init__(_without_batch(data), *args, headers=_without_batch(headers), **kwargs)
        for name in json_names():
            self.fields[name].decoder = FlatDecoder

    def clean(self) -> dict[str, Any] | None:
        try:
            refuse_batch({'batch': self._batch})
        except DefinitionError as error:
            self.add_error(None, f'{error.field}: {error}')
        if not self.instance.pk and 'payload_url' not in self.data:
            self.add_error('payload_url', _('Enter a URL, or leave it blank to make a feed.'))
        cleaned = super().clean()
        check_keys(self)
        return cleaned


class CredentialImportForm(SecretMixin, StrictImportForm):
    """Adds a credential, or changes a credential by its `id`. A blank secret keeps the stored one."""

    type = CSVChoiceField(choices=CredentialTypeChoices)
    secret = forms.CharField(required=False, help_text=credential_fields.field('secret').help_text)

    class Meta:
        model = Credential
        fields = credential_fields.shown_in('form')
