"""All that NetBox's form of a webhook shares with the admin's: presets, helps, checks, groups of fields, preview."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from netbox.context import current_request
from utilities.forms.fields import JSONField
from utilities.forms.rendering import FieldSet, InlineFields

from .. import object_types
from ..presentation.fields import (
    EXAMPLES,
    GROUPS,
    KINDS,
    NAMES,
    SECRET_CHOICES,
    Group,
    Row,
    help_of,
    json_names,
    label,
    shown_in,
)
from ..presentation.states import rotation_warning
from ..presets import Preset, all_presets
from ..services import preview, preview_sources
from ..services.keys import find_wrong
from .form_fields import FiltersField, FlatDecoder
from .masked import EnteredAgainMixin, MaskedFieldsMixin
from .secret import SecretFieldsMixin


def _is_same(entered: Any, given: Any) -> bool:
    """Whether a value was left as the form gave it.

    Browsers send other ends of lines, so white space does not count.
    """
    return isinstance(given, str) and isinstance(entered, str) and entered.split() == given.split()


def _begun(value: Any, field: forms.Field) -> Any:
    """Return typed text as a form's first value. A JSON field shows it unchanged, even if it is no JSON."""
    if isinstance(field, JSONField):
        return InvalidJSONInput(value)
    return value


# A field for each that is entered as JSON. It refuses what cannot be stored.
JsonFields = type(
    'JsonFields',
    (forms.ModelForm,),
    {name: JSONField(label=label(name), required=False, decoder=FlatDecoder) for name in json_names()},
)


class BaseWebhookForm(EnteredAgainMixin, MaskedFieldsMixin, SecretFieldsMixin, JsonFields):
    """The base of both forms of a webhook. A new webhook begins with the values of a preset, if one is chosen.

    Help texts and placeholders come from presentation/fields.py.
    """

    filters = FiltersField(label=label('filters'), required=False)
    send_list = forms.BooleanField(
        label=_('Send the present list'),
        required=False,
        help_text=_(
            'Sends all objects of a new list as created. If this is off, the receiver must have them already, and '
            'gets only changes.'
        ),
    )
    # The page's address names it; a posted form has it in a hidden field. A saved webhook has none.
    chosen_preset: Preset | None = None

    def __init__(self, *args, initial: dict[str, Any] | None = None, **kwargs):
        super().__init__(*args, initial=initial, **kwargs)
        if not self.instance.pk:
            self._begin(initial or {})
            chosen = all_presets().get(self.data.get('preset', ''))
            self.chosen_preset = self.chosen_preset or chosen
        for name in NAMES:
            self.fields[name].help_text = help_of(name)
        for name, example in EXAMPLES.items():
            attrs = self.fields[name].widget.attrs
            # NetBox's JSON field has a placeholder already, but an empty one.
            attrs['placeholder'] = attrs.get('placeholder') or example
        self.fields['object_types'].queryset = object_types.allowed()
        if self.instance.pk:
            self.fields['secret'].help_text = self._describe_secret()

    def _begin(self, given: Mapping[str, Any]) -> None:
        """Set the first values of a new webhook: its preset's, all kinds of change, and that a secret is generated.

        Values in the page's address win.
        """
        begun = dict.fromkeys(KINDS, True) if given.keys().isdisjoint(KINDS) else {}
        self.chosen_preset = all_presets().get(str(given.get('preset')))
        begun['generate_secret'] = not self.chosen_preset or self.chosen_preset.is_signed
        if self.chosen_preset:
            begun |= self.chosen_preset.fields
            self.fields['payload_url'].widget.attrs['placeholder'] = self.chosen_preset.url
        self.initial |= {name: value for name, value in begun.items() if name not in given}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        check_keys(self)
        self.instance.send_list = bool(self.cleaned_data.get('send_list'))
        if self.chosen_preset and not self.cleaned_data.get('payload_url') and 'payload_url' not in self.errors:
            text = _('Enter the address that {receiver} gave you, such as {url}')
            self.add_error('payload_url', text.format(receiver=self.chosen_preset.label, url=self.chosen_preset.url))
        return cleaned

    def typed(self) -> dict[str, Any]:
        """Return all entered values that differ from those the form began with, as `initial` of another form.

        A secret is left out: no page shows one.
        """
        given = self.chosen_preset.fields if self.chosen_preset else {}
        names = {*self.changed_data}
        # If one kind of change is given, the other form ticks no others by itself. So all of them are given.
        if not names.isdisjoint(KINDS):
            names.update(KINDS)
        return {
            name: _begun(self[name].data, self.fields[name])
            for name in names
            if name != 'secret' and not _is_same(self[name].data, given.get(name))
        }

    def shown_draft(self, request: HttpRequest) -> dict[str, Any]:
        """Return the context of webhooks/inc/draft.html: the request that the posted form would send, or its errors.

        Nothing is saved. `preview_source` in the request names an event or an object, and `preview_name` searches.
        """
        text, source = request.POST.get('preview_name', ''), request.POST.get('preview_source', '')
        shown = {'source': source, 'name': text, 'url': request.path}
        if wrong := self._errors_before_preview():
            return {**shown, 'wrong': wrong}
        draft = self._draft()
        shown['choices'] = preview_sources.choices(draft, request.user, text)
        return shown | preview.context(draft, request.user, source)

    def _errors_before_preview(self) -> list[tuple[str, str]]:
        """Return (label, error) of each error that prevents a preview. A missing name does not."""
        wrong = {name: errors for name, errors in self.errors.items() if name != 'name'}
        labels = {name: str(self.fields[name].label) if name in self.fields else '' for name in wrong}
        return [(labels[name], str(error)) for name, errors in wrong.items() for error in errors]

    def _draft(self) -> preview_sources.Draft:
        """Return the unsaved webhook. The form may have an error of its name, and no other."""
        users = [user.username for user in self.cleaned_data['ignore_users']]
        return preview_sources.Draft(self.instance, list(self.cleaned_data['object_types']), users)

    def _describe_secret(self) -> str:
        if not self._stored_secret:
            return _('No secret is stored, so requests are not signed. Enter or generate one to sign them.')
        facts = [_('A secret is stored. Leave blank to keep it. Enter or generate a new one to replace it.')]
        if self.instance.public_key:
            facts.append(
                _('The receiver verifies signatures with the public key {key}.').format(key=self.instance.public_key)
            )
        if warning := rotation_warning(self.instance):
            facts.append(warning)
        return ' '.join(str(fact) for fact in facts)


def check_keys(form: forms.ModelForm) -> None:
    """Check the fields that depend on the form's object types, and whether the user may filter these.

    Called at the end of `clean`, with the stored values in the form's instance. Errors go to the form.
    """
    request = current_request.get()
    for name, reason in find_wrong(form.instance, form.cleaned_data, request and request.user).items():
        form.add_error(name if name in form.fields else None, reason)


def groups_for(preset: Preset | None) -> Sequence[Group]:
    """Return the groups of fields that a form shows.

    With a preset, fields that are left to enter come first, and all others are folded.
    """
    if preset is None:
        return GROUPS
    unsigned = () if preset.is_signed else ('secret', *SECRET_CHOICES)
    done = {*preset.fields, 'description', *unsigned}.difference(preset.asks)
    first, *others = (
        group._replace(rows=tuple(row for row in group.rows if row not in preset.asks)) for group in GROUPS
    )
    left = first._replace(rows=(*(row for row in first.rows if row not in done), *preset.asks))
    more = Group(_('Other Settings'), tuple(row for row in first.rows if row in done))
    return [left, more, *others]


def fieldset(group: Group, is_titled: bool = True) -> FieldSet:
    """Return a group of fields as NetBox's forms show it. The fields of a `Row` stand side by side."""
    items = [_inline(row) if isinstance(row, Row) else row for row in group.rows]
    return FieldSet(*items, name=group.title if is_titled else None)


def _inline(row: Row) -> InlineFields:
    return InlineFields(*row.names, label=row.label, help_text=row.help)


def fieldsets(place: str) -> tuple[FieldSet, ...]:
    """Return the groups that have at least one field in `place`, a key of LEFT_OUT."""
    shown = set(shown_in(place))
    return tuple(fieldset(group) for group in GROUPS if shown.intersection(group.names))
