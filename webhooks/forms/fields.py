import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from django import forms
from utilities.forms import BOOLEAN_WITH_BLANK_CHOICES
from utilities.forms.widgets import DateTimePicker

from ..storable import NO_SUCH_OFFSET, is_flat, is_storable_time


def switch(label: str) -> forms.NullBooleanField:
    return forms.NullBooleanField(label=label, required=False, widget=forms.Select(choices=BOOLEAN_WITH_BLANK_CHOICES))


class TimeField(forms.DateTimeField):
    widget = DateTimePicker

    def validate(self, value: datetime | None) -> None:
        super().validate(value)
        if value and not is_storable_time(value):
            raise forms.ValidationError(NO_SUCH_OFFSET)


class FlatDecoder(json.JSONDecoder):
    def decode(self, text: str, *args: Any) -> Any:
        with suppress(RecursionError):
            value = super().decode(text, *args)
            if is_flat(value):
                return value
        raise json.JSONDecodeError('nested too deeply', text, 0)
