"""Fields of filters and of forms: yes, no or neither, and a point in time as PostgreSQL takes it."""

from datetime import datetime

from django import forms
from utilities.forms import BOOLEAN_WITH_BLANK_CHOICES
from utilities.forms.widgets import DateTimePicker

from ..storable import NO_SUCH_OFFSET, is_storable_time


def switch(label: str) -> forms.NullBooleanField:
    return forms.NullBooleanField(label=label, required=False, widget=forms.Select(choices=BOOLEAN_WITH_BLANK_CHOICES))


class TimeField(forms.DateTimeField):
    widget = DateTimePicker

    def validate(self, value: datetime | None) -> None:
        super().validate(value)
        if value and not is_storable_time(value):
            raise forms.ValidationError(NO_SUCH_OFFSET)
