"""A point in time, as PostgreSQL takes it."""

from datetime import datetime

from django import forms
from django.core.exceptions import ValidationError
from utilities.forms.widgets import DateTimePicker

from ..storable import NO_SUCH_OFFSET, is_storable_time


class TimeField(forms.DateTimeField):
    widget = DateTimePicker

    def validate(self, value: datetime | None) -> None:
        super().validate(value)
        if value and not is_storable_time(value):
            raise ValidationError(NO_SUCH_OFFSET)
