"""Yes, no, or neither: the choice of filters and of bulk edits."""

from django import forms
from utilities.forms import BOOLEAN_WITH_BLANK_CHOICES


def switch(label: str) -> forms.NullBooleanField:
    return forms.NullBooleanField(label=label, required=False, widget=forms.Select(choices=BOOLEAN_WITH_BLANK_CHOICES))
