"""Form fields that are stricter than NetBox's and Django's, or keep objects that the user may not view."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware
from django.utils.translation import gettext as _
from utilities.forms import BOOLEAN_WITH_BLANK_CHOICES
from utilities.forms.fields import DynamicModelChoiceField, DynamicModelMultipleChoiceField
from utilities.forms.widgets import DateTimePicker

from .. import object_types
from ..storable import NO_SUCH_OFFSET, is_flat, is_storable_time
from ..validation.lists import normalized_filters


def switch(label: str) -> forms.NullBooleanField:
    """Return a field with the choices blank (None), yes and no. It is optional."""
    return forms.NullBooleanField(label=label, required=False, widget=forms.Select(choices=BOOLEAN_WITH_BLANK_CHOICES))


class OffsetDateTimePicker(DateTimePicker):
    """NetBox's picker. A time with an offset from UTC gets a plain field: the picker's script would cut that off."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        if _has_offset(value):
            shown = context['widget']['attrs']
            shown['class'] = shown.get('class', '').replace('datetime-picker', '')
        return context


def _has_offset(value: Any) -> bool:
    try:
        found = parse_datetime(value)
    except (TypeError, ValueError):
        return False
    return found is not None and is_aware(found)


class TimeField(forms.DateTimeField):
    """A time, chosen with NetBox's picker. Raises ValidationError if PostgreSQL cannot store its time zone."""

    widget = OffsetDateTimePicker

    def validate(self, value: datetime | None) -> None:
        super().validate(value)
        if value and not is_storable_time(value):
            raise forms.ValidationError(NO_SUCH_OFFSET)


class FlatDecoder(json.JSONDecoder):
    """Decodes JSON that can be stored. Raises JSONDecodeError if it is nested too deeply (storable.py).

    So it does if a number is too long for Python, which then raises a plain ValueError.
    """

    def decode(self, text: str, *args: Any) -> Any:
        try:
            value = super().decode(text, *args)
        except json.JSONDecodeError:
            raise
        except (RecursionError, ValueError) as error:
            raise json.JSONDecodeError(str(error), text, 0) from error
        if not is_flat(value):
            raise json.JSONDecodeError('nested too deeply', text, 0)
        return value


class FiltersField(forms.CharField):
    """Takes a filter for each object type, one a line: 'dcim.site: status=active'. JSON is taken too.

    Returns {'dcim.site': 'status=active'}, {} for a blank text.
    """

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        """Return the text of a stored value."""
        return '\n'.join(f'{name}: {query}' for name, query in value.items()) if isinstance(value, dict) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return self.to_python(data) != self.to_python(initial)
        except forms.ValidationError:
            return True

    def to_python(self, value: Any) -> dict[str, str]:
        """Raise ValidationError for a line without a colon, and for a type that has two lines."""
        if isinstance(value, dict):
            return normalized_filters(value)
        text = super().to_python(value)
        if text.startswith('{'):
            return normalized_filters(forms.JSONField(decoder=FlatDecoder).to_python(text))
        lines = [line.partition(':') for line in text.splitlines() if line.strip()]
        names = [name.strip().lower() for name, _colon, _query in lines]
        if not all(colon for _name, colon, _query in lines) or len({*names}) < len(names):
            raise forms.ValidationError(_('Enter one filter per line, such as dcim.site: status=active'))
        return normalized_filters({name: query for name, (_name, _colon, query) in zip(names, lines, strict=True)})

    def validate(self, value: Any) -> None:
        super().validate(value or None)


class FilterOfEachType(forms.Widget):
    """Takes the text of a FiltersField in one input for each object type. `?` alone stands for all objects.

    The page shows the inputs of the selected types (static/webhooks/form.js), and sends no others.
    """

    template_name = 'webhooks/inc/filters.html'

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        try:
            given = FiltersField(required=False).to_python(value)
        except forms.ValidationError:
            given = {}
        context['inputs'] = [
            {
                'name': f'{name}:{label}',
                'type': object_type.pk,
                'title': object_types.name_of(object_type),
                'value': (given[label] or '?') if label in given else '',
            }
            for label, object_type in object_types.by_label().items()
        ]
        return context

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> str:
        """Return the text, with a line for each type whose filter is not blank."""
        labels = [key.partition(':')[2] for key in data if key.startswith(f'{name}:')]
        lines = [(label, data[f'{name}:{label}'].strip()) for label in labels]
        return '\n'.join(f'{label}: {query}' for label, query in lines if query)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return False: no input at all means no filter, where Django would keep the old ones."""
        return False

    def id_for_label(self, id_: str) -> str:
        return ''


class HiddenChoicesMixin:
    """Keeps stored objects that the user may not view. NetBox offers only the rest, and would drop them.

    A subclass says in `_stored` which objects are stored.
    """

    def get_bound_field(self, form: forms.ModelForm, field_name: str) -> forms.BoundField:
        # NetBox's field then narrows its queryset to the entered choices. So look for hidden objects before.
        self._hidden = self._stored(form.instance, field_name).exclude(pk__in=self.queryset)
        return super().get_bound_field(form, field_name)


class ModelChoiceField(HiddenChoicesMixin, DynamicModelChoiceField):
    """Chooses one object. Left blank, it keeps a stored object that the user may not view."""

    def _stored(self, instance: Model, name: str) -> QuerySet:
        return self.model.objects.filter(pk=getattr(instance, f'{name}_id'))

    def clean(self, value: Any) -> Model | None:
        return super().clean(value) or self._hidden.first()


class ModelMultipleChoiceField(HiddenChoicesMixin, DynamicModelMultipleChoiceField):
    """Chooses many objects. Stored objects that the user may not view stay chosen."""

    def _stored(self, instance: Model, name: str) -> QuerySet:
        return getattr(instance, name).all() if instance.pk else self.model.objects.none()

    def clean(self, value: Any) -> list[Model]:
        return [*super().clean(value), *self._hidden]
